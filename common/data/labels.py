"""From the values of a label column to the numbers of label names.

A federation learns nonsense when one site's 0 is another's 1, and nothing shows it: the site's test
rows are turned round as well.  So a value is a label only where nothing can be confused:

* it equals a name of ``data.labels`` in the normal form, or
* it is a code that ``data.label_codes`` maps to a name.

A whole number or a truth value is never taken for the place of a name.  One source uses names or
codes, not both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.data.batch import Batch
from common.data.normal import normal_form, one_letter_apart, whole_number
from common.errors import UserError

MAX_DISCOVERED = 1000
# A column of one label per row with more names than this, and fewer rows per name than that, is
# taken for an identifier.
MANY_NAMES, FEW_ROWS = 20, 5
# A name this rare beside one that is a letter apart and so much more frequent is taken for a typo.
RARE, FREQUENT, LONG = 2, 20, 5
NAMES, CODES = "names", "codes"
TRUTH = ("true", "false")
MISSING = frozenset(
    ("na", "n/a", "n.a.", "#n/a", "nan", "null", "none", "nil", "<na>", "\\n", "-", "?", ".")
)


class LabelCodec:
    """Numbers the labels of one table, and remembers how they were written.

    Args:
        names: The label names in order; empty where they are discovered.
        codes: The name of each code.
        discover: Whether new names are taken from the data.
        fold_case: Whether upper and lower case are the same.
        column: The label column, for messages.
    """

    def __init__(
        self,
        names: Sequence[str],
        codes: Mapping[str, str],
        *,
        discover: bool,
        fold_case: bool,
        column: str,
    ) -> None:
        self.names = list(names)
        self.discover = discover and not names
        self._fold_case = fold_case
        self._column = column
        self._numbers = {self._normal(name): number for number, name in enumerate(names)}
        self._codes = {
            normal_form(c, True): self._numbers[self._normal(n)] for c, n in codes.items()
        }
        # Read once each; a raw value that occurs again costs one look-up.
        self._known: dict[str, tuple[int, str]] = {}
        # Where the first label of each way of writing was found, and the first of each name.
        self._first: dict[str, str] = {}
        self._places: list[str] = []

    @property
    def coding(self) -> str | None:
        """How the labels are written, ``names`` or ``codes``; None before the first label."""
        return next(iter(self._first), None)

    def number(self, value: str, batch: Batch, index: int, what: str = "label") -> int:
        """The number of the name that ``value`` stands for.

        Args:
            value: A label as ``cell_name`` returns it, not empty.
            batch: The batch that it is from, for messages.
            index: Its row in the batch.
            what: What a label is called.

        Raises:
            UserError: Names file, row and column where the value is no label.
        """
        known = self._known.get(value)
        if known is None:
            known = self._known[value] = self._look_up(value, batch, index, what)
        number, coding = known
        if coding not in self._first:
            if self._first:
                other = next(iter(self._first))
                raise batch.error(
                    index,
                    self._column,
                    f"the {what} is one of the {coding}, but {self._first[other]} has one of the "
                    f"{other}: write all labels in one way",
                )
            self._first[coding] = batch.place(index)
        return number

    def _normal(self, name: str) -> str:
        folded = normal_form(name, True)
        return folded if folded in TRUTH else normal_form(name, self._fold_case)

    def _look_up(self, value: str, batch: Batch, index: int, what: str) -> tuple[int, str]:
        name, folded = self._normal(value), normal_form(value, True)
        number = whole_number(name)
        if number is not None and "." in name:
            name = number  # a whole number that was written as 1.0
        for form in (folded, number):
            if form is not None and form in self._codes:
                return self._codes[form], CODES
        for form in (name, number):
            if form is not None and form in self._numbers:
                return self._numbers[form], NAMES
        if self.discover:
            return self._new(value, name, batch, index), NAMES
        raise batch.error(index, self._column, self._problem(folded, number, what))

    def _problem(self, folded: str, number: str | None, what: str) -> str:
        """Why a value is no label, and what to do."""
        if self._codes and (number is not None or folded in TRUTH):
            return f"the {what} is not one of the {len(self._codes)} codes in data.label_codes"
        if not self._codes and (
            folded in TRUTH
            or (number is not None and all(whole_number(name) is None for name in self.names))
        ):
            kind = "a truth value" if folded in TRUTH else "a number"
            example = f"+data.label_codes.{'true' if folded in TRUTH else 0}={self.names[-1]}"
            return (
                f"the {what} is {kind}, but data.labels has names: say what every code stands "
                f"for in data.label_codes, as in {example}"
            )
        problem = f"the {what} is not one of the {len(self.names)} in data.labels"
        if any(normal_form(name, True) == folded for name in self.names):
            return f"{problem}: it differs from one in case alone; set data.fold_case=true"
        if folded == normal_form(self._column, True):
            return f"{problem}: it is the column's own name; is there a second header?"
        if folded in MISSING:
            return f"{problem}: it looks like a mark of a missing value; leave the row out"
        return problem

    def _new(self, value: str, name: str, batch: Batch, index: int) -> int:
        """The number of a name that was not seen before."""
        folded, problem = normal_form(value, True), None
        if folded == normal_form(self._column, True):
            problem = "the label is the column's own name: remove the second header"
        elif folded in MISSING:
            problem = "the label looks like a mark of a missing value: leave the row out"
        elif value.startswith(("[", "{", "(")) and value.endswith(("]", "}", ")")):
            problem = "the label is a printed list: write one label, or a list with task=multilabel"
        elif len(value) > 1 and value[0] == value[-1] == '"':
            problem = "the label is in quotes of its own: remove the space before the quote"
        elif len(self.names) == MAX_DISCOVERED:
            raise batch.error(
                index,
                self._column,
                f"more than {MAX_DISCOVERED} different labels: list them in data.labels",
            )
        if problem:
            raise batch.error(index, self._column, f"{problem}, or list it in data.labels")
        number = self._numbers[name] = len(self.names)
        self.names.append(name)
        self._places.append(batch.place(index))
        return number

    def check_discovered(self, counts: Sequence[int] | None) -> None:
        """Refuse names that a column of labels would not have.

        Args:
            counts: The number of rows of each name, where a row has one label.

        Raises:
            UserError: Names the places of two labels that may be one, or what is wrong.
        """
        numbers = [n for n, name in enumerate(self.names) if whole_number(name) is not None]
        words = [n for n, name in enumerate(self.names) if whole_number(name) is None]
        if numbers and words:
            raise self._two(numbers[0], words[0], "are a number and a name")
        by_case: dict[str, int] = {}
        for number, name in enumerate(self.names):
            twin = by_case.setdefault(normal_form(name, True), number)
            if twin != number:
                problem = "differ in case alone: set data.fold_case=true"
                raise self._two(twin, number, problem)
        if counts is None:
            return
        if len(self.names) > MANY_NAMES and sum(counts) < FEW_ROWS * len(self.names):
            raise UserError(
                f"column '{self._column}' has {len(self.names)} different labels in {sum(counts)} "
                "rows: is it an identifier? Set data.columns.label, or list the names in "
                "data.labels"
            )
        rare = [n for n, count in enumerate(counts) if count <= RARE and len(self.names[n]) >= LONG]
        for number in rare[:MAX_DISCOVERED]:
            for twin, count in enumerate(counts):
                if count >= FREQUENT * counts[number] and one_letter_apart(
                    self.names[number], self.names[twin]
                ):
                    raise self._two(twin, number, "differ in one letter, and one of them is rare")

    def sort(self) -> list[int]:
        """Sort the discovered names, and return the new number of each old one.

        In numerical order where all are whole numbers, else in alphabetical order.
        """
        order = list(range(len(self.names)))
        if all(whole_number(name) is not None for name in self.names):
            order.sort(key=lambda number: int(self.names[number]))
        else:
            order.sort(key=lambda number: self.names[number])
        self.names = [self.names[number] for number in order]
        self.discover = False
        rank = [0] * len(order)
        for new, old in enumerate(order):
            rank[old] = new
        return rank

    def _two(self, first: int, second: int, problem: str) -> UserError:
        return UserError(
            f"{self._places[second]}, column '{self._column}': the labels here and in "
            f"{self._places[first]} {problem}; or list the names in data.labels"
        )
