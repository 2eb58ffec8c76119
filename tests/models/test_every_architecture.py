"""What is trained and what decays, in all of open_clip's architectures."""

import pytest
from torch import nn

from models.student import StudentError, trainable_parameters
from models.training.optimizer import decaying_parameters
from tests.architectures import every_network

Networks = list[tuple[str, nn.Module]]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    return list(every_network(tmp_path_factory.mktemp("text models")))


def test_the_weights_of_matrix_products_decay_and_nothing_that_a_tower_exempts(networks: Networks) -> None:
    products = (nn.Linear, nn.modules.conv._ConvNd, nn.MultiheadAttention)
    for architecture, network in networks:
        expected = {
            name
            for name, _ in network.named_parameters()
            if name.endswith(("visual.proj", "text_projection"))
        }
        exempt = set()
        for prefix, module in network.named_modules():
            if isinstance(module, products):
                own = module.named_parameters(prefix, recurse=False)
                expected |= {name for name, value in own if value.ndim > 1}
            if hasattr(module, "no_weight_decay"):
                exempt |= {f"{prefix}.{name}" for name in module.no_weight_decay()}
        assert decaying_parameters(network) == expected, architecture
        assert not expected & exempt, architecture


def test_layer_norms_and_rms_norms_train_in_both_towers(networks: Networks) -> None:
    for architecture, network in networks:
        expected = {
            name
            for prefix, module in network.named_modules()
            if any(kind in type(module).__name__.lower() for kind in ("layernorm", "rmsnorm"))
            for name, _ in module.named_parameters(prefix, recurse=False)
        }
        of_image_tower = {name for name in expected if name.startswith("visual.")}
        assert expected > of_image_tower, architecture
        if of_image_tower:
            assert set(trainable_parameters(network)) == expected, architecture
        else:
            with pytest.raises(StudentError, match="image tower has no LayerNorm"):
                trainable_parameters(network)
