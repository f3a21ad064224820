"""The longer steps of the programs: models that are fitted, functions that are defined and called."""

from __future__ import annotations

from tools.microworld.draws import Draws
from tools.microworld.program_table import Step, Table
from tools.microworld.program_words import ProgramNames, spoken


def model_step(table: Table, names: ProgramNames, draws: Draws) -> Step:
    """Fit a model that predicts a measure, classifies it as high or low, or finds clusters."""
    target, first = table.two(draws)
    inputs = [first, *(name for name in table.measures[:3] if name not in (target, first))]
    columns = ", ".join(f'"{name}"' for name in inputs)
    lines = [f"X = {table.frame}[[{columns}]]"]
    uses: tuple[str, ...] = ()
    if draws.chance(0.3):
        lines.append("X = StandardScaler().fit_transform(X)")
        uses = ("StandardScaler",)
    shape = draws.below(10)
    if shape < 2:
        says, fitting, using = _clusters(table, draws)
    elif shape < 4:
        says = f"is {spoken(target)} high?"
        lines.append(f"y = {table.column(target)} > {draws.between(1, 99)}")
        kind = draws.pick(("LogisticRegression()", f"RandomForestClassifier(n_estimators={50 * draws.between(1, 6)})"))
        fitting, using = _fitted(kind, draws, metric="accuracy_score")
    else:
        says = f"predict {spoken(target)} from {spoken(first)}"
        lines.append(f"y = {table.column(target)}")
        forest = f"RandomForestRegressor(n_estimators={50 * draws.between(1, 6)})"
        kind = draws.pick(("LinearRegression()", f"Ridge(alpha={draws.between(1, 9)}.0)", forest))
        fitting, using = _fitted(kind, draws, metric="mean_squared_error")
    return Step("model", says, (*lines, *fitting), uses=(*uses, *using), reads=(table.frame,))


def _clusters(table: Table, draws: Draws) -> tuple[str, list[str], tuple[str, ...]]:
    count = draws.between(2, 8)
    lines = [f"model = KMeans(n_clusters={count}, random_state=0)", "model.fit(X)", "print(model.cluster_centers_)"]
    return f"{count} kinds of {table.subject.row}", lines, ("KMeans",)


def _fitted(model: str, draws: Draws, *, metric: str) -> tuple[list[str], tuple[str, ...]]:
    """Return the lines that cross-validate a model, or fit it to one part and score it on the other."""
    kind = model.partition("(")[0]
    if draws.chance(0.25):
        scores = f"scores = cross_val_score(model, X, y, cv={draws.between(3, 10)})"
        return [f"model = {model}", scores, "print(scores.mean())"], (kind, "cross_val_score")
    parts = f"test_size=0.{draws.between(1, 4)}, random_state={draws.below(43)}"
    lines = [
        f"X_train, X_test, y_train, y_test = train_test_split(X, y, {parts})",
        f"model = {model}",
        "model.fit(X_train, y_train)",
        "predictions = model.predict(X_test)",
        f'print("{spoken(metric)}:", {metric}(y_test, predictions))',
    ]
    return lines, (kind, "train_test_split", metric)


def function_step(table: Table, names: ProgramNames, draws: Draws) -> Step:
    """Define a function and call it."""
    one, kind = table.measure(draws), draws.pick(("scale", "simulate"))
    function = names.function(kind, table.subject)
    if kind == "simulate":
        count, mean = 10 * draws.between(1, 100), draws.between(1, 60)
        says = f"{count} random values of {spoken(one)}"
        lines = [
            f"def {function}(n, mean={mean}):",
            f'    """{says.capitalize()}."""',
            "    rng = np.random.default_rng(0)",
            "    values = []",
            "    for _ in range(n):",
            f"        values.append(rng.normal(mean, {draws.between(1, 9)}))",
            "    return np.array(values)",
            "",
            "",
            f"print({function}({count}).mean())",
        ]
        return Step(kind, says, tuple(lines), uses=("np",), defines=True)
    says = f"{spoken(one)} between 0 and {draws.between(1, 99)}"
    low = draws.pick(("None", "0", "1"))
    lines = [
        f"def {function}(values, low={low}):",
        f'    """{says.capitalize()}."""',
        "    result = []",
        "    for value in values:",
        f"        if value is None or value < {draws.between(0, 9)}:",
        "            result.append(low)",
        "        else:",
        f"            result.append(value {draws.pick(('/', '*', '-'))} {draws.between(2, 99)})",
        "    return result",
        "",
        "",
        f"print({function}([{', '.join(str(draws.below(100)) for _ in range(draws.between(2, 5)))}]))",
    ]
    return Step(kind, says, tuple(lines), defines=True)
