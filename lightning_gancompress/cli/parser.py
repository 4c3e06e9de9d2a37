"""A parser whose errors are sentences in the words of the command line."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from lightning_gancompress.cli.explain import condense, listed
from lightning_gancompress.cli.suggestions import suggestion
from lightning_gancompress.errors import UserError
from lightning_gancompress.lightning_internals import commands_of, options_of

_WITHOUT_OPTIONS = "the following arguments are required: "
_WITHOUT_COMMAND = re.compile(r'expected "([\w.]*)" to be one of .*, but it was not provided')


class Parser(LightningArgumentParser):
    """A parser that raises errors as a `UserError` of one sentence.

    Attributes:
        other_form: Parser of another form of the command, which the help shows first.
    """

    other_form: LightningArgumentParser | None = None

    def format_help(self, *args: Any) -> str:
        """The help of all forms."""
        text: str = super().format_help(*args)
        if self.other_form is None:
            return text
        self.other_form.prog = f"{program(self)} --model FILE --input PICTURES"
        return f"{self.other_form.format_help(*args)}\nWith a configuration of a run:\n\n{text}"

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse arguments; files that options name are read meanwhile."""
        try:
            return super().parse_args(*args, **kwargs)
        except UnicodeDecodeError as error:
            self.error(str(error), error)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Shorten the message of jsonargparse."""
        if not self.exit_on_error:  # within jsonargparse, which catches it
            super().error(message, ex)
        at, sentence = _missing(self, message) or (getattr(ex, "subcommand_parser", self), condense(message))
        raise UserError(f"{sentence}{suggestion(self, message)} See `{program(at)} --help`.") from ex


def program(parser: LightningArgumentParser) -> str:
    """The words that call a parser's command."""
    return str(parser.prog).replace(" [options]", "")


def _missing(parser: LightningArgumentParser, message: str) -> tuple[LightningArgumentParser, str] | None:
    """The command that lacks something, and what it lacks; None for messages of other things."""
    if message.startswith(_WITHOUT_OPTIONS):
        found = [_option(parser, key) for key in message.removeprefix(_WITHOUT_OPTIONS).split(", ")]
        at, names = found[0][0], [name for _, name in found]
        return at, f"`{program(at)}` needs {listed(names, 'and')}."
    if (without := _WITHOUT_COMMAND.match(message)) is not None:
        at, _ = _option(parser, without[1])
        return at, f"`{program(at)}` needs a command: {listed(commands_of(at), 'or')}."
    return None


def _option(parser: LightningArgumentParser, key: str) -> tuple[LightningArgumentParser, str]:
    """The command of a key such as `data.pair.output`, and the option as it is typed."""
    command, _, rest = key.partition(".")
    if command in commands_of(parser):
        return _option(commands_of(parser)[command], rest)
    option = next((option for option in options_of(parser) if option.dest == key), None)
    if option is None or option.option_strings:
        return parser, f"--{key}"
    return parser, str(option.metavar or key.upper())
