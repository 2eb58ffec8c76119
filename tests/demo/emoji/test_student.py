import torch

from sds_clip.demo.emoji.student import model_config, narrowed, widened
from sds_clip.demo.student import new_student

CONFIG = model_config(100)


def test_a_widened_student_tells_what_the_narrow_one_told_and_has_the_weights_of_timm() -> None:
    torch.manual_seed(0)
    expected = {name: value.shape for name, value in new_student(100, CONFIG).state_dict().items()}
    student = narrowed(new_student(100, CONFIG)).eval()
    kernels = {value.shape[-1] for name, value in student.state_dict().items() if "conv_dw.weight" in name}
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        narrow = student.encode_image(images)
        wide = widened(student).encode_image(images)
    assert kernels == {3}
    assert {name: value.shape for name, value in student.state_dict().items()} == expected
    assert torch.allclose(wide, narrow, atol=1e-5)


def test_the_student_has_at_most_five_million_parameters() -> None:
    assert sum(each.numel() for each in new_student(2500, model_config(2500)).parameters()) < 5_000_000
