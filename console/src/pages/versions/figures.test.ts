import { describe, expect, test } from "vitest";
import { dataSetsOf, evaluationsOf, interval, metricTitle, partsOf } from "./figures";

const metric = { value: 0.412, low: 0.364, high: 0.461, n: 1400 };

describe("figures of a description", () => {
  test("have their benchmark and their data set", () => {
    const [found] = evaluationsOf({ "winoground (ds_1)": { metrics: { group_match: metric } } });
    expect(found).toMatchObject({ benchmark: "winoground", data: "ds_1", metrics: { group_match: metric } });
  });

  test("may be numbers alone, and what is no figure is left out", () => {
    const found = evaluationsOf({
      "winoground (ds_1)": { metrics: { group: 0.25, odd: "<b>", none: null, not: { value: "1" } } },
      broken: "text",
      empty: { metrics: {} },
    });
    expect(found.map(({ metrics }) => metrics)).toEqual([{ group: { value: 0.25 } }]);
    expect(evaluationsOf(null)).toEqual([]);
  });

  test("are compared on the data set that most versions share", () => {
    const on = (data: string) => evaluationsOf({ [`winoground (${data})`]: { metrics: { group: 0.1 } } });
    expect(dataSetsOf([on("ds_1"), on("ds_2"), on("ds_2"), []], "winoground")).toEqual(["ds_2", "ds_1"]);
    expect(dataSetsOf([on("ds_1")], "retrieval")).toEqual([]);
  });
});

test("the name of a figure has a benchmark and perhaps a data set", () => {
  expect(partsOf("winoground (ds_1)")).toEqual({ benchmark: "winoground", data: "ds_1" });
  expect(partsOf("validation")).toEqual({ benchmark: "validation", data: "" });
});

test("an interval has the number of its items", () => {
  expect(interval(metric)).toBe("36.4 to 46.1 %, n = 1,400");
  expect(interval({ value: 0.4, n: 20 })).toBe("n = 20");
  expect(interval({ value: 0.4 })).toBe("");
});

test.each([
  ["group_match", "GroupMatch"],
  ["group_score", "Group score"],
  ["image_retrieval_recall@1", "Image retrieval, recall@1"],
  ["mean_per_class_recall", "Mean per class recall"],
  ["base_validation_clip", "CLIP’s loss on the validation data, before the training"],
])("%s is called %s", (name, title) => expect(metricTitle(name)).toBe(title));
