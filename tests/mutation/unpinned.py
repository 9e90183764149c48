"""The parts of the code that no test should pin, and that are therefore not mutated."""

from __future__ import annotations

import builtins
import itertools
from typing import TYPE_CHECKING, Any

import libcst as cst
from mutmut.mutation import file_mutation
from mutmut.mutation.mutators import operator_arg_removal

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Functions that make a text for people out of a value.
TEXT_OF = {"repr", "shown", "visible"}
ERRORS = {"error", "cause"}
#: Arguments by function: the name of a thread, and an assertion that two sequences are equally long.
KEYWORDS = {("Thread", "name"), ("zip", "strict")}
EXCEPTIONS = {
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, BaseException)
}


class Visitor(file_mutation.MutationVisitor):
    """Visits what tests should pin."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._unpinned: set[cst.Arg] = set()

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Call):
            self._unpinned.update(argument for argument in node.args if _is_unpinned_keyword(node, argument))
        return super()._skip_node_and_children(node) or node in self._unpinned or is_unpinned(node)


def is_unpinned(node: cst.CSTNode) -> bool:
    """Return whether this is a text for people, a line of the log, or what an error of Python's says."""
    match node:
        case cst.Assign() | cst.AnnAssign():
            return node.value is not None and is_unpinned(node.value)
        case cst.Call():
            return _is_log(node) or _name(node) in EXCEPTIONS or _is_text_of_value(node)
    return _is_text(node)


def _is_text(node: cst.CSTNode) -> bool:
    """Return whether this is a string with a space. What is inserted into such a string is part of it."""
    match node:
        case cst.SimpleString():
            return " " in node.value
        case cst.ConcatenatedString():
            return _is_text(node.left) or _is_text(node.right)
        case cst.FormattedString():
            return any(isinstance(part, cst.FormattedStringText) and " " in part.value for part in node.parts)
    return False


def _is_text_of_value(call: cst.Call) -> bool:
    value = call.args[0].value if call.args else None
    while isinstance(value, cst.Attribute):  # error.message
        value = value.value
    is_error = isinstance(value, cst.Name) and value.value in ERRORS
    return _name(call) in TEXT_OF or (_name(call) == "str" and is_error)


def _is_log(call: cst.Call) -> bool:
    """Return whether this writes a line, or binds fields of lines. Which events there are is tested."""
    match call.func:
        case cst.Attribute(value=cst.Name(value="log")):
            return True
    return _name(call) == "bound"


def _name(call: cst.Call) -> str:
    """Return the name of the called function, without its module or object."""
    match call.func:
        case cst.Name(value=name) | cst.Attribute(attr=cst.Name(value=name)):
            return name
    return ""


def pinned_arguments(node: cst.Call) -> Iterable[cst.Call]:
    """Drop or replace the arguments of a call as mutmut does, but only those that tests should pin."""
    for mutant in operator_arg_removal(node):
        pairs = itertools.zip_longest(node.args, mutant.args)
        changed = next(old for old, new in pairs if new is not old)
        if not is_unpinned(changed.value) and not _is_unpinned_keyword(node, changed):
            yield mutant


def _is_unpinned_keyword(call: cst.Call, argument: cst.Arg) -> bool:
    return argument.keyword is not None and (_name(call), argument.keyword.value) in KEYWORDS
