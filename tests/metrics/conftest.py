import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory):
    """Inception with random weights as a file: as good as the trained one to compare two computations."""
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save({}, path)
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        # the constructor insists on loading a file
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda network, state: None)
        torch.manual_seed(0)
        network = FeatureExtractorInceptionV3("random", ["64"], feature_extractor_weights_path=str(path))
    for name, tensor in network.state_dict().items():
        if name.endswith("conv.weight"):
            tensor *= 6**0.5  # He's scale: torch's own lets the signal fade from layer to layer
    torch.save(network.state_dict(), path)
    return path
