"""The configuration of the jobs whose events are streamed."""

from sds_clip.app.schemas.finetune import FinetuneSpec, Hyperparameters

CONFIG = FinetuneSpec(
    base="demo", training_data="ds_1", objective="clip", hyperparameters=Hyperparameters(steps=5)
).as_row()
