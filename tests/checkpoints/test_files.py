import pickle
import subprocess
import sys
import warnings

import pytest
import torch

from lightning_gancompress import UserError, load_generator
from lightning_gancompress.checkpoints.files import read_torch
from lightning_gancompress.networks import ResnetGenerator


class Code:
    """What loads it without care runs `print`."""

    def __reduce__(self):
        return print, ("this code ran",)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no file .*none\.pth"):
        load_generator(tmp_path / "none.pth")


def test_a_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="is a folder: name the checkpoint file"):
        load_generator(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.01, 0.3, 0.7, 0.999])
def test_a_truncated_file_is_named(tmp_path, zipped, part):
    file = tmp_path / "latest_net_G.pth"
    tensors = ResnetGenerator(ngf=2, n_blocks=1).state_dict()
    torch.save(tensors, file, _use_new_zipfile_serialization=zipped)
    assert load_generator(file)  # whole, it is fine in the old format as well
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content))])
    with pytest.raises(UserError, match=r"latest_net_G.pth is truncated or was not written by torch.save"):
        load_generator(file)


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 no archive", b"\x89PNG\r\n\x1a\n" + bytes(100), b"<html>not found</html>"]
)
def test_another_kind_of_file_is_named(tmp_path, content):
    file = tmp_path / "latest_net_G.pth"
    file.write_bytes(content)
    with pytest.raises(UserError, match="truncated or was not written"):
        load_generator(file)


def test_programs_and_other_formats_are_named_with_a_way_to_their_tensors(tmp_path):
    layer = torch.nn.Conv2d(3, 4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(layer), tmp_path / "program.pth")
    torch.export.save(torch.export.export(layer, (torch.zeros(1, 3, 8, 8),)), tmp_path / "program.pt2")
    (tmp_path / "generator.onnx").write_bytes(b"\x08\x0a")
    for name, words in (
        ("generator.onnx", r"holds no weights that torch reads: give the .pth beside it"),
        ("program.pth", r"is a TorchScript program: save .*torch\.jit\.load\(path, 'cpu'\)\.state_dict\(\)"),
        ("program.pt2", r"is a torch.export program: save .*dict\(torch\.export\.load\(path\)\.state_dict\)"),
    ):
        with pytest.raises(UserError, match=rf"{name} {words}"):
            load_generator(tmp_path / name)


@pytest.mark.parametrize(
    "save",
    [
        lambda file: torch.save({"model.1.weight": Code()}, file),
        lambda file: torch.save({"model.1.weight": Code()}, file, _use_new_zipfile_serialization=False),
        lambda file: torch.save(ResnetGenerator(ngf=2, n_blocks=1), file),
        lambda file: file.write_bytes(pickle.dumps(Code())),
    ],
)
def test_code_in_a_file_does_not_run(tmp_path, capsys, save):
    file = tmp_path / "latest_net_G.pth"
    save(file)
    with pytest.raises(UserError, match=r"contains more than tensors.*state_dict\(\)"):
        read_torch(file)
    assert "this code ran" not in capsys.readouterr().out


def test_loading_imports_no_lightning(tmp_path):
    torch.save(ResnetGenerator(ngf=2, n_blocks=1).state_dict(), tmp_path / "latest_net_G.pth")
    program = (
        "import sys, lightning_gancompress\n"
        "lightning_gancompress.load_generator(sys.argv[1])\n"
        "heavy = ('lightning', 'torchvision', 'torchmetrics')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "latest_net_G.pth")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
