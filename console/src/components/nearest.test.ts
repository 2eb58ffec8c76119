import { expect, test } from "vitest";
import { heightAt, pointAt, within } from "./nearest";

test("the crosshair reads the nearest point, and without it the last one is told", () => {
  const line = { xs: [0, 10, 20], ys: [1, 2, null] };
  const at = (x: number | undefined) => pointAt(line, x);
  expect([at(-5)?.x, at(4)?.x, at(5)?.x, at(6)?.x]).toEqual([0, 0, 10, 10]);
  expect(at(6)).toEqual({ x: 10, y: 2 });
  expect([at(99), at(undefined)]).toEqual([
    { x: 20, y: null },
    { x: 20, y: null },
  ]);
  expect(pointAt({ xs: [], ys: [] }, 3)).toBeUndefined();
});

test("only points of the part that is shown are read", () => {
  const line = { xs: [20, 25, 30], ys: [3, 2, 1] };
  expect(pointAt(within(line, [25, 29]), 28.7)).toEqual({ x: 25, y: 2 });
  expect(within(line, [26, 28])).toEqual({ xs: [], ys: [] });
  expect(within(line, [0, 30])).toEqual(line);
});

test("a line between two points has a height, and none beyond its ends or in a gap", () => {
  const line = { xs: [25, 30, 35, 40], ys: [4, 2, null, 1] };
  expect([heightAt(line, 25), heightAt(line, 26), heightAt(line, 30)]).toEqual([4, 3.6, 2]);
  expect([24, 33, 38, 41].map((x) => heightAt(line, x))).toEqual(Array(4).fill(undefined));
});
