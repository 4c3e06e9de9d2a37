"""What `--help` and `--debug` show, and what the shell completes."""

import inspect
import re
import shlex
import subprocess
from contextlib import redirect_stdout, suppress

import pytest

from lightning_gancompress.cli import main
from lightning_gancompress.cli.commands.profile import profile
from lightning_gancompress.cli.completion import words_of
from lightning_gancompress.cli.help_texts import EXAMPLES, first_sentence
from lightning_gancompress.errors import UserError
from lightning_gancompress.modules import GANModule
from lightning_gancompress.shipped_configs import find_config


def printed(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main(list(args))
    assert not stop.value.code
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def completion(tmp_path_factory):
    """The script for bash, in a file."""
    pytest.importorskip("shtab")
    file = tmp_path_factory.mktemp("completion") / "gancompress.bash"
    with file.open("w") as stream, redirect_stdout(stream), suppress(SystemExit):
        main(["--print_completion", "bash"])
    return file


def test_the_commands_come_first_each_with_what_it_is_for(capsys):
    text = printed(capsys, "--help")
    commands = text.partition("\ncommands:\n")[2].partition("\noptions:\n")[0]
    told = dict(re.findall(r"^    (\w+) +(\S.*)", commands, re.MULTILINE))
    assert {"fit", "test", "predict", "export", "profile", "compare", "report"} <= set(told)
    assert "Lightning" not in commands
    assert "never run on your" not in commands  # Lightning's words, cut in their middle


def test_own_options_of_fit_come_before_those_of_lightning(capsys):
    text = printed(capsys, "fit", "--help")
    order = [
        "-c",  # Python 3.13 goes on with ", --config CONFIG"
        "--ckpt_path",
        "--model ",
        "--data ",
        "--trainer.callbacks.",
        "--trainer.min_epochs",
    ]
    places = [text.index(f"  {option}", text.index("\noptions:")) for option in order]
    assert places == sorted(places)
    assert text.startswith("usage: gancompress fit [--config")
    assert "CollaborativePruning" in text
    assert "lightning_gancompress." not in text  # short names
    assert "paramref" not in text
    assert f"Example: gancompress fit {EXAMPLES['fit']}" in " ".join(text.split())


def test_every_option_of_profile_is_shown_and_its_flag_needs_no_value(capsys, tmp_path):
    text = printed(capsys, "profile", "--help")
    own = inspect.signature(profile).parameters.keys() - {"model", "datamodule"}
    assert [name for name in own if f"\n  --{name} " not in text] == []
    assert "--advice [{true,false}]" in text
    with pytest.raises(SystemExit):
        main(["profile", "--advice", f"--ckpt_path={tmp_path / 'none.ckpt'}"])
    assert "none.ckpt" in capsys.readouterr().err  # the flag was read


def test_what_a_short_command_needs_stands_in_its_usage_and_first(capsys):
    text = printed(capsys, "export", "--help")
    assert text.startswith("usage: gancompress export --ckpt_path CKPT_PATH [--config")
    assert text.index("\noptions:") < text.index("  --format") < text.index("\noptions of all commands:")


@pytest.mark.parametrize(
    ("command", "names"), [("check", "[DIR]"), ("pair", "A B OUTPUT"), ("download", "[NAME]")]
)
def test_commands_of_data_list_their_own_options_first(command, names, capsys):
    text = printed(capsys, "data", command, "--help")
    assert text.startswith(f"usage: gancompress data {command} {names} [--config")
    assert re.findall(r"^(\w.*):$", text, re.MULTILINE) == ["options", "options of all commands"]


def test_profile_hides_the_trainer_that_it_does_not_use(capsys):
    text = printed(capsys, "profile", "--help")
    assert "--trainer.max_epochs" not in text
    assert "--size" in text


@pytest.mark.parametrize("command", EXAMPLES)
def test_an_example_is_accepted(command, capsys, tmp_path, monkeypatch, unet):
    """Its configurations ship, and the parser takes its options; checkpoints are those of another run."""
    words = shlex.split(EXAMPLES[command])
    words = [str(unet) if word.endswith(".ckpt") else word for word in words]
    assert all(find_config(word) for word in words if word.endswith(".yaml"))
    monkeypatch.chdir(tmp_path)
    assert ":" in printed(capsys, command, *words, "--print_config")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How often. Default: ``1``.", "How often."),
        ("Pass :class:`torch.utils.data.Sampler` on. More", "Pass Sampler on."),
        ("In [0.0, 1.0] of it", "In [0.0, 1.0] of it."),
        ("", ""),
    ],
)
def test_first_sentence(text, expected):
    assert first_sentence(text) == expected


@pytest.mark.parametrize("args", [["--debug", "fit"], ["fit", "--debug"]], ids=" ".join)
def test_debug_raises_what_is_one_sentence_otherwise(args, capsys):
    with pytest.raises(UserError, match=r"nope\.yaml"):
        main([*args, "--config", "nope.yaml"])
    with pytest.raises(SystemExit) as stop:
        main([word for word in args if word != "--debug"] + ["--config", "nope.yaml"])
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_debug_is_no_setting(capsys):
    assert "debug" not in printed(capsys, "fit", "--debug", "--config=quickstart.yaml", "--print_config")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["exp"], ["export"]),
        (["export", "--form"], ["--format"]),
        (["data", "ch"], ["check"]),
        (["data", "check", "--data.crop_s"], ["--data.crop_size"]),
        (["export", "--format", ""], ["onnx", "openvino", "torch"]),
        (["fit", "--model.discriminator_bud"], ["--model.discriminator_budget"]),
        (["fit", "--model.macs", "l"], ["literature"]),
        (["fit", "--trainer.callbacks.search_e"], ["--trainer.callbacks.search_epochs"]),
    ],
    ids=str,
)
def test_bash_completes(words, expected, completion):
    script = f"source {completion}; COMP_WORDS=(gancompress {shlex.join(words)}); COMP_CWORD={len(words)}; "
    script += (
        f"_shtab_gancompress gancompress {shlex.quote(words[-1])} ''; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    run = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert sorted(run.stdout.split()) == expected


def test_completion_knows_the_classes_of_an_option():
    assert {"CompressionModule", "TeacherModule"} <= set(words_of(GANModule | None))
    assert words_of(bool | None) == ["true", "false"]
    assert words_of(str) == []


def test_a_script_for_zsh(capsys):
    pytest.importorskip("shtab")
    assert printed(capsys, "--print_completion", "zsh").startswith("#compdef gancompress")


def test_completion_without_shtab_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    with pytest.raises(SystemExit) as stop:
        main(["--print_completion", "bash"])
    assert stop.value.code == 2
    assert "pip install shtab" in capsys.readouterr().err
