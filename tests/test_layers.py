"""What the rooms may not do to each other, read off their sources."""

import ast
import subprocess
import sys
from pathlib import Path

import lightning_gancompress

PACKAGE = Path(lightning_gancompress.__file__).parent
FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


def imports(file: str) -> list[str]:
    nodes = list(ast.walk(ast.parse((PACKAGE / file).read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return names + [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]


def test_only_the_entrances_import_the_command_line():
    users = [f for f in FILES if any(name.startswith("lightning_gancompress.cli") for name in imports(f))]
    assert [file for file in users if not file.startswith("cli/")] == ["__main__.py", "api.py"]


def test_the_trainer_knows_no_commands():
    assert [name for name in imports("trainer.py") if "cli" in name or "reporting" in name] == []


def test_an_import_sets_no_filters():
    for file in FILES:
        for node in ast.parse((PACKAGE / file).read_text()).body:
            inside = isinstance(node, ast.FunctionDef | ast.ClassDef)
            assert inside or "filterwarnings" not in ast.unparse(node), file


def test_what_reads_files_loads_no_lightning():
    code = "import sys\n"
    for name in ("shipped_configs", "checkpoints.recorded_settings", "checkpoints.generators"):
        code += f"import lightning_gancompress.{name}\nif 'lightning' in sys.modules: sys.exit('{name}')\n"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def room(module: str) -> str:
    """The folder, or the file of the top level, that a module of the package lies in."""
    return module.removeprefix("lightning_gancompress.").partition(".")[0]


def test_rooms_import_in_one_direction():
    """Sorted so that each room stands above all that it imports; what is left over imports in a circle."""
    needs: dict[str, set[str]] = {}
    for file in FILES:
        own = file.removesuffix(".py").partition("/")[0]
        used = {room(name) for name in imports(file) if name.startswith("lightning_gancompress.")}
        needs.setdefault(own, set()).update(used - {own})
    while ground := [name for name, used in needs.items() if not used & needs.keys()]:
        for name in ground:
            del needs[name]
    assert needs == {}


def test_phases_know_no_lightning():
    files = ["search/phase.py", *(file for file in FILES if file.startswith(("training/", "finetune/")))]
    assert [(f, name) for f in files for name in imports(f) if name.startswith("lightning.")] == []
