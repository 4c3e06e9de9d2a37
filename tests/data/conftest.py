import pytest
from noise_files import SIZES, noise, write_aligned


@pytest.fixture
def root(tmp_path):
    """Eleven training and five validation pairs of 8x8 pixels."""
    write_aligned(tmp_path / "train", 11)
    write_aligned(tmp_path / "val", 5)
    return tmp_path


@pytest.fixture
def domains(tmp_path):
    """Noise of 8x8 pixels, in domains of different sizes."""
    for number, (name, count) in enumerate(SIZES.items()):
        (tmp_path / name).mkdir()
        for i in range(count):
            noise(8, 8, seed=100 * number + i).save(tmp_path / name / f"{name[-1]}{i:02}.png")
    return tmp_path
