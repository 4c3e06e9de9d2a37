"""What `gancompress` and `python -m lightning_gancompress` run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lightning.pytorch.cli import ArgsType
from lightning.pytorch.utilities import rank_zero_only

from lightning_gancompress.cli.command_line import GanCompressCLI
from lightning_gancompress.cli.explain import explain
from lightning_gancompress.cli.flags import DEBUG
from lightning_gancompress.cli.other_ranks import failure_of_another_rank, tell_other_ranks
from lightning_gancompress.cli.quieten import quieten
from lightning_gancompress.cli.several_budgets import BudgetRuns, makes_several
from lightning_gancompress.cli.trusted_settings import named_by
from lightning_gancompress.errors import first_line
from lightning_gancompress.modules import CompressionModule
from lightning_gancompress.trust import trusting


def _follow(cli: GanCompressCLI, args: object) -> None:
    """Run what follows a command: after a `fit` of several budgets those of the larger ones."""
    if cli.subcommand != "fit" or not isinstance(cli.model, CompressionModule):
        return
    tried: bool = cli.trainer.fast_dev_run  # type: ignore[attr-defined]
    if tried or not (isinstance(args, list) and makes_several(cli.model)):
        return
    runs = BudgetRuns(cli.trainer, cli.model, args, GanCompressCLI)
    del cli  # data and networks of the run that has ended
    runs.run()


def _reader_is_gone() -> bool:
    """Whether nobody reads what is printed any more; then it is thrown away from here on."""
    try:
        print(flush=True)
    except BrokenPipeError:
        # the interpreter flushes once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def run(args: ArgsType = None) -> None:
    """Run the command line: see `lightning_gancompress.cli.main`."""
    quieten()
    if (cwd := str(Path.cwd())) not in sys.path:
        sys.path.append(cwd)  # for the user's own classes; last, so that no file there hides a package
    given = sys.argv[1:] if args is None else args
    words = given if isinstance(given, list) else []
    try:
        with trusting(named_by(words)):
            _follow(GanCompressCLI(args), given)
    except SystemExit as stop:
        # Lightning turns Ctrl-C into code 1
        raise SystemExit(130) if isinstance(stop.__context__, KeyboardInterrupt) else stop from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            raise SystemExit(141) from None  # 128 + SIGPIPE, as of other programs before `| head`
        message = failure_of_another_rank(error) or explain(error)
        if message is None or DEBUG in words or os.environ.get("GANCOMPRESS_TRACEBACK") == "1":
            tell_other_ranks(f"{type(error).__name__}: {first_line(error)}; its output has the traceback.")
            raise
        rank = f"[rank {rank_zero_only.rank}] " if rank_zero_only.rank else ""  # type: ignore[attr-defined]
        print(f"{rank}error: {message}", file=sys.stderr, flush=True)
        tell_other_ranks(message)
        raise SystemExit(2) from None
