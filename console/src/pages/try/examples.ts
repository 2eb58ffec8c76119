/** Pictures for readers who have none at hand: three of the demo world's held-out part. */

import star from "../../../../demo/data/heldout/images/ex_170_img_0.png";
import hourglass from "../../../../demo/data/heldout/images/ex_177_img_0.png";
import square from "../../../../demo/data/heldout/images/ex_326_img_0.png";

export interface Example {
  name: string;
  url: string;
  caption: string;
}

export const EXAMPLES: readonly Example[] = [
  {
    name: "ex_177_img_0.png",
    url: hourglass,
    caption: "there is a large black circle below a lime hourglass",
  },
  {
    name: "ex_326_img_0.png",
    url: square,
    caption: "an orange circle on the left of a purple square",
  },
  { name: "ex_170_img_0.png", url: star, caption: "a big red diamond left of a pink star" },
];

export const LABELS = "circle\nsquare\ndiamond\nstar\nhourglass";

export async function fileOf({ name, url }: Example): Promise<File> {
  const answer = await fetch(url);
  return new File([await answer.blob()], name, { type: "image/png" });
}
