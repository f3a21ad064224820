"""The steps of the programs: a few lines of pandas, NumPy, matplotlib or scikit-learn on one table.

A step uses columns that exist after the steps before it, and the steps after it may use the columns that it adds.
"""

from __future__ import annotations

from collections.abc import Callable

from tools.microworld.draws import Draws
from tools.microworld.program_models import function_step, model_step
from tools.microworld.program_table import Step, Table
from tools.microworld.program_words import ProgramNames, spoken


def opening_step(table: Table, names: ProgramNames, draws: Draws) -> Step:
    """Read the table from a file."""
    path = f'"{names.file(table.subject)}.csv"'
    options = draws.pick(("", "", "", ', sep=";"', ", index_col=0", f", nrows={100 * draws.between(1, 50)}"))
    lines = [f"{table.frame} = pd.read_csv({path}{options})"]
    if draws.chance(0.4):
        lines.append(
            draws.pick((f"print({table.frame}.head())", f"print({table.frame}.shape)", f"{table.frame}.info()"))
        )
    says = draws.pick(
        ("read the data", f"load the {draws.pick(table.subject.files)}", f"one row is a {table.subject.row}")
    )
    return Step("load", says, tuple(lines), uses=("pd",), changes=True, path=path)


def next_step(table: Table, names: ProgramNames, draws: Draws) -> Step:
    """Draw any other step, common ones more often."""
    return draws.pick(_STEPS)(table, names, draws)


def _clean(table: Table, names: ProgramNames, draws: Draws) -> Step:
    frame, one = table.frame, table.measure(draws)
    column = table.column(one)
    shape = draws.below(6)
    if shape == 0:
        two = table.group(draws)
        says, line = f"drop rows without {spoken(one)}", f'{frame} = {frame}.dropna(subset=["{one}", "{two}"])'
    elif shape == 1:
        way = draws.pick(("mean", "median", "min"))
        says, line = f"fill in missing {spoken(one)}", f"{column} = {column}.fillna({column}.{way}())"
    elif shape == 2:
        bound = draws.between(1, 99)
        sign = draws.pick((">", "<", ">="))
        says, line = f"keep rows with {spoken(one)} {sign} {bound}", f"{frame} = {frame}[{column} {sign} {bound}]"
    elif shape == 3:
        group = table.column(table.group(draws))
        says, line = "tidy the names", f"{group} = {group}.str.{draws.pick(('lower', 'strip', 'upper'))}()"
    elif shape == 4:
        says, line = "no row twice", f"{frame} = {frame}.drop_duplicates()"
    else:
        new = names.measure(table.subject)
        table.measures[table.measures.index(one)] = new
        says, line = f"call {spoken(one)} {spoken(new)}", f'{frame} = {frame}.rename(columns={{"{one}": "{new}"}})'
    return Step("clean", says, (line,), reads=(frame,), changes=True)


def _derive(table: Table, names: ProgramNames, draws: Draws) -> Step:
    first, second = table.two(draws)
    one, two, new = table.column(first), table.column(second), names.measure(table.subject)
    shape = draws.below(4)
    uses: tuple[str, ...] = ()
    if shape == 0:
        says, value = f"{spoken(first)} per {spoken(second)}", f"{one} / {two}"
    elif shape == 1:
        says, value, uses = f"log of {spoken(first)}", f"np.log1p({one})", ("np",)
    elif shape == 2:
        says, value = f"standardize {spoken(first)}", f"({one} - {one}.mean()) / {one}.std()"
    else:
        bound = draws.between(1, 99)
        says, value, uses = f"flag high {spoken(first)}", f"np.where({one} > {bound}, 1, 0)", ("np",)
    table.measures.append(new)
    return Step("derive", says, (f"{table.column(new)} = {value}",), uses=uses, reads=(table.frame,), changes=True)


def _group(table: Table, names: ProgramNames, draws: Draws) -> Step:
    one, group, way = table.measure(draws), table.group(draws), draws.pick(("mean", "sum", "max", "median", "count"))
    says = f"{way} {spoken(one)} by {spoken(group)}"
    grouped = f'{table.frame}.groupby("{group}")'
    shape = draws.below(4)
    if shape == 0:
        lines = [f"for name, part in {grouped}:", f'    print(name, part["{one}"].{way}())']
    elif shape == 1:
        lines = [f'print({grouped}["{one}"].agg(["{way}", "std"]))']
    else:
        result = f"{way}s" if draws.chance(0.5) else "result"
        lines = [f'{result} = {grouped}["{one}"].{way}()']
        if shape == 2:
            lines.append(f"print({result}.sort_values(ascending=False).head({draws.between(3, 10)}))")
        else:
            lines += [
                f"for name, value in {result}.items():",
                f'    print(f"{{name}}: {{value:.{draws.between(1, 3)}f}}")',
            ]
    return Step("group", says, tuple(lines), reads=(table.frame,))


def _plot(table: Table, names: ProgramNames, draws: Draws) -> Step:
    first, second = table.two(draws)
    one, two = table.column(first), table.column(second)
    lines = [f"plt.figure(figsize=({draws.between(4, 12)}, {draws.between(3, 8)}))"] if draws.chance(0.5) else []
    shape = draws.below(4)
    if shape == 0:
        says = f"histogram of {spoken(first)}"
        lines += [f"plt.hist({one}, bins={10 * draws.between(1, 5)})", f'plt.xlabel("{spoken(first)}")']
    elif shape == 1:
        says = f"{spoken(first)} against {spoken(second)}"
        lines += [f"plt.scatter({two}, {one}, alpha=0.{draws.between(2, 8)})"]
        lines += [f'plt.xlabel("{spoken(second)}")', f'plt.ylabel("{spoken(first)}")']
    elif shape == 2:
        group = table.group(draws)
        says = f"{spoken(first)} of each {spoken(group)}"
        lines += [
            f'{table.frame}.groupby("{group}")["{first}"].mean().plot(kind="bar")',
            f'plt.ylabel("{spoken(first)}")',
        ]
    else:
        says = f"{spoken(first)} over time"
        lines += [f'plt.plot({one}, label="{spoken(first)}")', "plt.legend()"]
    if draws.chance(0.5):
        lines.append(f'plt.title("{says.capitalize()}")')
    lines.append("plt.show()" if draws.chance(0.7) else f'plt.savefig("{first}.png")')
    return Step("plot", f"plot {says}", tuple(lines), uses=("plt",), reads=(table.frame,))


_STEPS: tuple[Callable[[Table, ProgramNames, Draws], Step], ...] = (
    *(_clean, _clean, _derive, _group, _group, _group),
    *(_plot, _plot, _plot, model_step, model_step, function_step),
)
"""A step that is listed twice is twice as likely."""
