"""The configuration of the jobs whose events are streamed."""

from typing import Any

CONFIG: dict[str, Any] = {
    "base": "demo",
    "teacher": None,
    "training_data": "ds_1",
    "validation_data": None,
    "objective": "clip",
    "evaluate": [],
    "promote": "never",
    "alias": "default",
    "thresholds": {},
    "seed": 0,
}
