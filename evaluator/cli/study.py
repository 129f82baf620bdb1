"""`evaluator study …`: forms for people, made from runs, and their answers read back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from evaluator.cli.printing import plain, print_lines
from evaluator.text import count_of

study = typer.Typer(
    name="study",
    help="Ask people: forms from runs, and their answers read back as numbers.",
    no_args_is_help=True,
)


RunsArgument = Annotated[
    list[Path],
    typer.Argument(help="Runs that kept images: two or more for pairs, one or more else."),
]
OutputOption = Annotated[
    Path, typer.Option(help="New folder of study.json (not for raters) and forms/.")
]
KindOption = Annotated[
    Literal["pairs", "real-or-generated"],
    typer.Option(help="Two images of one prompt, or one image that may be real."),
]
ReferenceOption = Annotated[
    str | None,
    typer.Option(help="Real images for real-or-generated: a run, a pack, or any source of images."),
]
ItemsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Different items that each rater sees; default: 50, or all."),
]
RepeatsOption = Annotated[
    int | None,
    typer.Option(
        min=0, help="Of these, how many return once more, for self-agreement; default: a tenth."
    ),
]
RatersOption = Annotated[int, typer.Option(min=1, help="Raters; each gets a form of their own.")]
ChecksOption = Annotated[
    int, typer.Option(min=0, help="Attention checks of pairs: an image, and the same one spoilt.")
]
SeedOption = Annotated[int, typer.Option(help="Seed of items, orders and sides.")]
QuestionOption = Annotated[str | None, typer.Option(help="What is asked, above every item.")]
InstructionsOption = Annotated[
    Path | None,
    typer.Option(help="Text file shown before the first item: consent, instructions."),
]
SideOption = Annotated[int, typer.Option(min=16, help="Longest side of images, in pixels.")]
TiesOption = Annotated[
    bool, typer.Option("--ties/--no-ties", help="Whether `no difference` may be answered.")
]
PromptsOption = Annotated[
    bool, typer.Option("--prompts/--no-prompts", help="Whether pairs show their prompt.")
]


@study.command("make")
def make_verb(
    runs: RunsArgument,
    output: OutputOption,
    kind: KindOption = "pairs",
    reference: ReferenceOption = None,
    items: ItemsOption = None,
    repeats: RepeatsOption = None,
    raters: RatersOption = 5,
    checks: ChecksOption = 0,
    seed: SeedOption = 0,
    question: QuestionOption = None,
    instructions: InstructionsOption = None,
    side: SideOption = 512,
    ties: TiesOption = True,
    prompts: PromptsOption = True,
) -> None:
    """Write one self-contained page for each rater; nothing in it says which run is which."""
    from evaluator.study.make import StudyRequest, make_study, read_instructions

    request = StudyRequest(
        runs=runs, kind=kind, reference=reference, items=items, repeats=repeats, raters=raters,
        checks=checks, seed=seed, question=question, side=side, ties=ties, show_prompts=prompts,
        instructions=None if instructions is None else read_instructions(instructions),
    )  # fmt: skip
    made = make_study(request, output)
    found = made.study
    trials = len(found.raters[0].trials)
    print_lines([
        f"study {found.id}: {count_of(len(found.items) - checks, 'item')}, "
        f"{count_of(trials, 'question')} for each of {count_of(len(found.raters), 'rater')}",
        f"forms: {made.forms[0]} … one a rater, at most {made.largest / 2**10:,.0f} KiB",
        f"key: {output / 'study.json'} (keep it from raters: it says which image is whose)",
        f"Then put what they save into {output / 'answers'}: evaluator study read {output}",
        *(f"warning: {line}" for line in made.warnings),
    ])  # fmt: skip


@study.command("read")
def read_verb(
    folder: Annotated[Path, typer.Argument(help="Folder that `study make` wrote.")],
    answers: Annotated[
        list[Path] | None,
        typer.Argument(help="Files that raters saved; default: those in FOLDER/answers."),
    ] = None,
    cited: Annotated[
        Path | None,
        typer.Option(
            help="Write a citation file (YAML) as well, for `evaluator leaderboard --cited`."
        ),
    ] = None,
) -> None:
    """Read answers back: win rates, Bradley-Terry, agreement, accuracy; study-results.json."""
    from evaluator.study.cited import write_cited
    from evaluator.study.read import RESULTS_FILE, TABLE_FILE, read_back
    from evaluator.study.results import results_lines

    results = read_back(folder, answers or []).results
    print_lines(results_lines(results))
    typer.echo(plain(f"\nresults: {folder / RESULTS_FILE}\nanswers: {folder / TABLE_FILE}"))
    if cited is not None:
        write_cited(results, cited)
        typer.echo(plain(f"cited: {cited}"))
