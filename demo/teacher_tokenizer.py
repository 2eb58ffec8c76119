"""A byte-pair tokenizer of CLIP's kind, as in Stable Diffusion, trained on the demo's captions."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = 400  # more than the world's words need


def save_teacher_tokenizer(folder: Path, captions: list[str], context_length: int) -> None:
    """Learn the merges from `captions` and write the files that every CLIPTokenizer reads."""
    vocabulary, merges = learn_merges(captions)
    _write(folder, vocabulary, merges, context_length)


def load_teacher_tokenizer(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder)


def write_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write the files that transformers 5 no longer saves but 4 needs: vocab.json, merges.txt, settings."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [(left, right) for left, right in model["merges"]]
    _write(folder, model["vocab"], merges, tokenizer.model_max_length)


def learn_merges(captions: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Learn byte-pair merges within words; every byte has an entry, both inside a word and at its end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + MERGES, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(captions, trainer)
    merges = [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]
    entries = [
        *alphabet,
        *(f"{byte}</w>" for byte in alphabet),
        *("".join(pair) for pair in merges),
        START,
        END,
    ]
    return {entry: number for number, entry in enumerate(dict.fromkeys(entries))}, merges


def _write(
    folder: Path, vocabulary: dict[str, int], merges: list[tuple[str, str]], context_length: int
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": context_length,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
