"""Small faults planted into a module's syntax tree, one at a time.

Operators: comparisons (boundary and negation), arithmetic, `and`/`or`, `not`, signs, numbers and
truth values, the condition of `if`, `while` and conditional expressions, and returned values.
Left alone is what no test can or should see: annotations, decorators, imports, docstrings, the
texts of messages, `if TYPE_CHECKING` blocks and `zip(strict=)`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        number: its position among the mutants of its file.
        line: the first line of the statement, or of the condition, that it changes.
        last_line: the last line of the same.
        function: the qualified name of the function around it; empty at module or class level,
            where code runs at import.
        before: the expression as it is.
        after: the expression with the fault.
    """

    number: int
    line: int
    last_line: int
    function: str
    before: str
    after: str

    @property
    def name(self) -> str:
        """A name that stays the same while the lines around the fault move."""
        return f"{self.function or '(module)'}: {self.before} -> {self.after}"


@dataclass(frozen=True)
class _Site:
    """Where a fault goes: `apply` changes the tree in place."""

    node: ast.AST
    span: tuple[int, int]
    function: str
    apply: Callable[[], ast.AST]


def mutants(source: str) -> list[Mutant]:
    """All mutants of a module's source, in order; names that occur twice are numbered."""
    listed: list[Mutant] = []
    seen: dict[str, int] = {}
    for number, _ in enumerate(_sites(ast.parse(source))):
        site = _site(source, number)
        before = ast.unparse(site.node)
        after = ast.unparse(site.apply())
        mutant = Mutant(number, *site.span, site.function, before, after)
        count = seen[mutant.name] = seen.get(mutant.name, 0) + 1
        if count > 1:
            after += f" ({count})"
        listed.append(Mutant(number, *site.span, site.function, before, after))
    return listed


def mutated(source: str, number: int) -> ast.Module:
    """The syntax tree of `source` with mutant `number` planted."""
    tree = ast.parse(source)
    for at, site in enumerate(_sites(tree)):
        if at == number:
            site.apply()
            return ast.fix_missing_locations(tree)
    raise IndexError(f"there is no mutant {number}")


def _site(source: str, number: int) -> _Site:
    return next(s for at, s in enumerate(_sites(ast.parse(source))) if at == number)


def _sites(tree: ast.Module) -> Iterator[_Site]:
    yield from _Walk().statements(tree.body, "")


class _Walk:
    """Yields sites in source order; `span` is the range of lines of the statement at hand."""

    def __init__(self) -> None:
        # Whether the functions around the statement at hand return a truth value, innermost last.
        self.truth = [False]

    def statements(self, body: list[ast.stmt], function: str) -> Iterator[_Site]:
        """The sites of a list of statements."""
        for statement in body:
            yield from self.statement(statement, function)

    def statement(self, node: ast.stmt, function: str) -> Iterator[_Site]:
        """The sites of one statement."""
        span = (node.lineno, node.end_lineno or node.lineno)
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
                for default in defaults:
                    yield from self.inside(node.args, default, function, span)
                inner = f"{function}.{node.name}" if function else node.name
                self.truth.append(node.returns is not None and ast.unparse(node.returns) == "bool")
                yield from self.statements(node.body, inner)
                self.truth.pop()
            case ast.ClassDef():
                for child in node.body:
                    yield from self.statement(child, f"{function}.{node.name}" if function else "")
            case ast.Import() | ast.ImportFrom() | ast.Global() | ast.Nonlocal():
                return
            case ast.If() if ast.unparse(node.test) == "TYPE_CHECKING":
                return
            case ast.Assign() if ast.unparse(node.targets[0]) == "__all__":
                return
            case ast.AnnAssign():
                if node.value is not None:
                    yield from self.inside(node, node.value, function, span)
            case _:
                yield from self.compound(node, function, span)

    def compound(self, node: ast.stmt, function: str, span: tuple[int, int]) -> Iterator[_Site]:
        """Any other statement: its expressions, then the statements within it."""
        if isinstance(node, ast.If | ast.While):
            span = (node.test.lineno, node.test.end_lineno or node.test.lineno)
            yield from self.condition(node, function, span)
        elif hasattr(node, "body") and node.body:
            first = node.body[0]
            span = (node.lineno, max(node.lineno, first.lineno - 1))
        if isinstance(node, ast.Return) and node.value is not None:
            yield from self.returned(node, function, span)
        if isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
            yield self.operator(node, function, span)
        for name, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.stmt):
                    yield from self.statement(child, function)
                elif isinstance(child, ast.ExceptHandler | ast.match_case):
                    yield from self.statements(child.body, function)
                elif isinstance(child, ast.AST) and not (
                    name == "value" and isinstance(node, ast.Expr) and _is_text(child)
                ):
                    yield from self.inside(node, child, function, span)

    def condition(
        self, node: ast.If | ast.While | ast.IfExp, function: str, span: tuple[int, int]
    ) -> Iterator[_Site]:
        """A condition negated, unless it is an operator that is mutated anyway."""
        if isinstance(node.test, ast.Compare | ast.BoolOp | ast.Constant) or (
            isinstance(node.test, ast.UnaryOp) and isinstance(node.test.op, ast.Not)
        ):
            return

        def apply() -> ast.AST:
            node.test = ast.UnaryOp(ast.Not(), node.test)
            return node.test

        yield _Site(node.test, span, function, apply)

    def returned(self, node: ast.Return, function: str, span: tuple[int, int]) -> Iterator[_Site]:
        """The negation of a truth value, and None in place of anything else that is returned."""
        if isinstance(node.value, ast.Constant) and node.value.value in (None, False, True):
            # None for False would be no difference, and truth values are mutated as such.
            return
        negated = self.truth[-1]

        def apply() -> ast.AST:
            assert node.value is not None
            node.value = ast.UnaryOp(ast.Not(), node.value) if negated else ast.Constant(None)
            return node

        yield _Site(ast.parse(ast.unparse(node)).body[0], span, function, apply)

    def operator(
        self, node: ast.AugAssign | ast.BinOp, function: str, span: tuple[int, int]
    ) -> _Site:
        """Another arithmetic operator."""

        def apply() -> ast.AST:
            node.op = ARITHMETIC[type(node.op)]()
            return node

        return _Site(node, span, function, apply)

    def inside(
        self, parent: ast.AST, node: ast.AST, function: str, span: tuple[int, int]
    ) -> Iterator[_Site]:
        """The sites of an expression and of all within it."""
        if isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.keyword) and node.arg == "strict"
        ):
            return
        if isinstance(node, ast.Compare):
            yield from self.comparisons(node, function, span)
        elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _texts(node):
            yield self.operator(node, function, span)
        elif isinstance(node, ast.BoolOp):
            yield self.either(node, function, span)
        elif isinstance(node, ast.IfExp):
            yield from self.condition(node, function, span)
        elif isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.UAdd):
            yield self.replaced(parent, node, node.operand, function, span)
        elif isinstance(node, ast.Constant):
            for value in _others(node.value):
                yield self.replaced(parent, node, ast.Constant(value), function, span)
        for child in ast.iter_child_nodes(node):
            yield from self.inside(node, child, function, span)

    def comparisons(
        self, node: ast.Compare, function: str, span: tuple[int, int]
    ) -> Iterator[_Site]:
        """Every comparison of a chain: its boundary moved, and its negation."""
        for at, operator in enumerate(node.ops):
            for other in COMPARISONS[type(operator)]:

                def apply(at: int = at, other: type[ast.cmpop] = other) -> ast.AST:
                    node.ops[at] = other()
                    return node

                yield _Site(node, span, function, apply)

    def either(self, node: ast.BoolOp, function: str, span: tuple[int, int]) -> _Site:
        """`or` for `and`, and the other way round."""

        def apply() -> ast.AST:
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            return node

        return _Site(node, span, function, apply)

    def replaced(
        self,
        parent: ast.AST,
        node: ast.expr,
        other: ast.expr,
        function: str,
        span: tuple[int, int],
    ) -> _Site:
        """`other` in place of `node`, a child of `parent`."""

        def apply() -> ast.AST:
            for name, value in ast.iter_fields(parent):
                if value is node:
                    setattr(parent, name, other)
                elif isinstance(value, list):
                    value[:] = [other if child is node else child for child in value]
            return other if not isinstance(parent, ast.expr) else parent

        shown = parent if isinstance(parent, ast.expr) else node
        return _Site(shown, span, function, apply)


def _others(value: object) -> tuple[object, ...]:
    """Other values for a number or a truth value; none for a text."""
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return (value + 1,)
    if isinstance(value, float):
        return (value * 1.5 if value else 1.0,)
    return ()


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )


def _texts(node: ast.BinOp) -> bool:
    """Whether one side is a text, so that another operator would only be a type error."""
    return _is_text(node.left) or _is_text(node.right)
