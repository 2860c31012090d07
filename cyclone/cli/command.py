"""Ask the generator of a job to carry out one of its commands, while it works.

Which commands there are is up to the generator; `help`, which all of them know, lists them. Arguments are written
as NAME=VALUE. The answer is printed as it comes: text as text, all else as JSON.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from cyclone.cli.connection import add_config_file, connect, read_settings
from cyclone.cli.page import visible
from cyclone.errors import EXIT_OK, RuleBroken
from cyclone.messages import AskGenerator, GeneratorAnswer

#: Longer than a generator may take before the master says that it does not answer.
ANSWER_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_file(parser)
    parser.add_argument(
        "--job", default="", help="name of the job; not needed where only one has a generator"
    )
    parser.add_argument("--json", action="store_true", help="print the answer in one line, for programs")
    parser.add_argument("name", metavar="NAME", help="of the command; help lists what there is")
    parser.add_argument(
        "arguments", metavar="NAME=VALUE", nargs="*", type=argument, help="what it needs to know"
    )


def argument(text: str) -> tuple[str, str]:
    """One `NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected NAME=VALUE")
    return name, value


def run(options: argparse.Namespace) -> int:
    answer = ask(options, options.name, dict(options.arguments))
    if options.json:
        print(json.dumps(answer))
    elif isinstance(answer, str):
        print("\n".join(map(visible, answer.splitlines())))
    else:
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    return EXIT_OK


def ask(options: argparse.Namespace, name: str, arguments: dict[str, str]) -> Any:
    """What the generator answers. Raises Refusal with its reason, MasterUnreachable."""
    question = AskGenerator(request=0, job=options.job, command=name, arguments=arguments)
    with connect(read_settings(options)) as client:
        reply = client.ask(question, timeout_s=ANSWER_S)
    if not isinstance(reply, GeneratorAnswer):
        raise RuleBroken(f"the master answered with {type(reply).__name__}")
    return json.loads(reply.answer)
