/** A picture for readers who have none at hand: drawn, since the service ships no pictures. */

export const EXAMPLE = {
  caption: "a red circle left of a blue square",
  texts:
    "a red circle left of a blue square\na blue circle left of a red square\na blue square left of a red circle",
  labels: "circle\nsquare\nstar",
};

const SIDE = 64;

export async function drawExample(): Promise<File> {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const draw = canvas.getContext("2d");
  if (draw) {
    draw.fillStyle = "white";
    draw.fillRect(0, 0, SIDE, SIDE);
    draw.fillStyle = "red";
    draw.beginPath();
    draw.arc(17, 32, 12, 0, 2 * Math.PI);
    draw.fill();
    draw.fillStyle = "blue";
    draw.fillRect(36, 21, 22, 22);
  }
  const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done));
  return new File(blob ? [blob] : [], "example.png", { type: "image/png" });
}
