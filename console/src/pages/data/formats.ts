/** The formats of data sets: what they are for, and what an archive of them must hold (docs/reference/file-formats.md). */

export const PAIRS = "pairs";

export interface Format {
  name: string;
  /** What it is, in a sentence. */
  meaning: string;
  /** What the archive holds: any one of these. */
  layouts: readonly string[];
}

export const FORMATS: readonly Format[] = [
  {
    name: PAIRS,
    meaning: "Images with captions, to train on.",
    layouts: [
      "images, each with a `.txt` of the same name beside it; every line is a caption",
      "images, and one `.csv` or `.tsv` with the columns `filepath` and `title`",
      "images, and one `.json` with COCO's `images` and `annotations`",
      'images, and a `metadata.jsonl` with lines such as `{"file_name": "a.jpg", "text": "a dog"}`, or a `metadata.csv` with the columns `file_name` and `text`',
      "`.parquet` files with the columns `image` and `caption`, or a folder that `save_to_disk` of Hugging Face wrote",
    ],
  },
  {
    name: "winoground",
    meaning: "Which of two captions with the same words fits which of two images?",
    layouts: ["`examples.jsonl` and `images/`", "Parquet, or a folder that `save_to_disk` wrote"],
  },
  {
    name: "colorswap",
    meaning: "Which of two captions with swapped colours fits which of two images?",
    layouts: ["`test.json` and `images/`", "Parquet with the images inside"],
  },
  {
    name: "mmvp-vlm",
    meaning: "Which of two similar images fits a statement, in nine visual patterns?",
    layouts: ["`Questions.csv` and `MLLM_VLM Images/`"],
  },
  {
    name: "vg-relation",
    meaning: "ARO: does a caption give a relation in the right direction?",
    layouts: ["`visual_genome_relation.json` and `images/`"],
  },
  {
    name: "vg-attribution",
    meaning: "ARO: which attribute belongs to which object?",
    layouts: ["`visual_genome_attribution.json` and `images/`"],
  },
  {
    name: "coco-order",
    meaning: "ARO: is a caption of COCO preferred to four wrong orders of its words?",
    layouts: ["`coco_karpathy_test.json`, or a file of word orders, and the images"],
  },
  {
    name: "flickr-order",
    meaning: "ARO: is a caption of Flickr30k preferred to four wrong orders of its words?",
    layouts: ["`flickr30k_test.json`, or a file of word orders, and the images"],
  },
  {
    name: "sugarcrepe",
    meaning: "Is a true caption preferred to a fluent false one, in seven subsets?",
    layouts: ["any of the seven files from `add_att.json` to `swap_obj.json`, and `val2017/`"],
  },
  {
    name: "sugarcrepe-pp",
    meaning: "SugarCrepe++: are two true captions both preferred to a false one?",
    layouts: ["its `.json` files and `val2017/`"],
  },
  {
    name: "sugarcrepe-pp-text",
    meaning: "SugarCrepe++, text only: are two true captions closer to each other than to a false one?",
    layouts: ["its `.json` files; it needs no images"],
  },
  {
    name: "whats-up",
    meaning: "Which of four captions says where an object is?",
    layouts: [
      "`controlled_images_dataset.json` and `controlled_clevr_dataset.json`, with `controlled_images/` and `controlled_clevr/`",
    ],
  },
  {
    name: "coco-spatial",
    meaning: "What'sUp on COCO: where is an object?",
    layouts: ["`coco_qa_one_obj.json`, `coco_qa_two_obj.json` and `val2017/`"],
  },
  {
    name: "gqa-spatial",
    meaning: "What'sUp on GQA: where is an object?",
    layouts: ["`vg_qa_one_obj.json`, `vg_qa_two_obj.json` and `vg_images/`"],
  },
  {
    name: "half-truths",
    meaning: "Is a true caption preferred to itself with a wrong detail?",
    layouts: [
      "any of `coco_qwen.jsonl`, `coco_mistral.jsonl` and `cc3m_qwen.jsonl`, and the images",
      "`.parquet` files of these names with the images inside",
    ],
  },
  {
    name: "zero-shot",
    meaning: "Classification by the names of the classes.",
    layouts: [
      "a folder of images for each class",
      "`classnames.txt`, and `test/0.tar`, `test/1.tar`, … with `KEY.jpg` and `KEY.cls`",
      "a table with the columns `image` and `label`",
    ],
  },
  {
    name: "retrieval",
    meaning: "Search: the image of a text, and the text of an image.",
    layouts: [
      'one `.json` with a list of `{"image": …, "caption": […]}`, or with COCO\'s captions, and the images',
      "images, and a `metadata.jsonl` or `metadata.csv`",
      "a table with the columns `image` and `caption`",
    ],
  },
];

export function meaningOf(format: string): string {
  return FORMATS.find(({ name }) => name === format)?.meaning ?? "";
}
