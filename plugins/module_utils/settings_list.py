# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""A list in the text of a Django settings file: found by the file's syntax tree, changed by splicing the text, so that everything
else comes out byte for byte. The file is never run. Python 3.8 and the standard library alone."""

from __future__ import annotations

import ast
import sys

from ansible_collections.comses.spamops.plugins.module_utils.host_changes import listed, marker, marker_pattern
from ansible_collections.comses.spamops.plugins.module_utils.host_names import Refused
from ansible_collections.comses.spamops.plugins.module_utils.python_entries import (
    Container,
    characters,
    entries_of,
    is_bracketed,
    spliced,
    tokens_of,
)

_CHANGING_METHODS = frozenset(["append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "__iadd__"])
OVERLAY = "Another way: a settings module of one's own that extends this one (mode: overlay)"


class SettingsList:
    """A settings file's text, and where in it the variable gets its entries."""

    def __init__(self, text, variable, owner):
        self.text = text
        self.variable = variable
        self.owner = owner
        self.lines = text.split("\n")
        self.line_starts = [0]
        for line in self.lines:
            self.line_starts.append(self.line_starts[-1] + len(line) + 1)
        try:
            self.tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise Refused(
                f"this machine's Python {_python_version()} cannot parse the file ({error}). Mend it; or, where the site runs"
                f" a newer Python than this machine: {OVERLAY.lower()}"
            ) from None
        self.warnings = []
        self.opaque = []
        self.containers = []
        self._read()
        self._read_marker()

    # Reading

    def _read(self):
        statements = self._statements()
        for statement in statements:
            self._read_value(statement.value)
        if not self.containers:
            raise Refused(
                f"line {statements[-1].lineno}: {self.variable} is not a list or tuple that is written out ({self.opaque_words()}). {OVERLAY}"
            )
        if isinstance(statements[0], ast.AugAssign):
            self.opaque.insert(0, statements[0])

    def _statements(self):
        """The statements that make up the value, in order: the last assignment and what is added to it."""
        self._refuse_the_unclear()
        found = []
        for index, node in enumerate(self.tree.body):
            if isinstance(node, ast.AugAssign) and self._is_it(node.target):
                if not isinstance(node.op, ast.Add):
                    raise Refused(f"line {node.lineno} changes {self.variable} by another operator than +=")
                found.append((index, node))
            elif isinstance(node, ast.AnnAssign) and self._is_it(node.target):
                if node.value is not None:
                    found = [(index, node)]
            elif isinstance(node, ast.Assign) and any(self._is_it(target) for target in node.targets):
                if len(node.targets) > 1:
                    raise Refused(
                        f"line {node.lineno} gives one list to several names, and a change would be one of all. {OVERLAY}"
                    )
                found = [(index, node)]
            elif isinstance(node, (ast.Import, ast.ImportFrom)) and self._imports_it(node):
                found = []
        if not found:
            raise Refused(f"nothing in this file sets {self.variable}. Name the settings file that does. {OVERLAY}")
        for node in self.tree.body[found[-1][0] :]:
            for inner in ast.walk(node):
                if isinstance(inner, ast.ImportFrom) and any(alias.name == "*" for alias in inner.names):
                    self.warnings.append(
                        f"line {inner.lineno} imports everything from a module after {self.variable} is set, and may set it again"
                    )
        self.statements = [node for dummy, node in found]
        return self.statements

    def _is_it(self, node):
        return isinstance(node, ast.Name) and node.id == self.variable

    def _imports_it(self, node):
        return any((alias.asname or alias.name) == self.variable for alias in node.names)

    def _refuse_the_unclear(self):
        """Refuse where the variable is changed in a way that this file does not show with certainty."""
        plain = set()
        for node in self.tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
                plain.update(id(target) for target in targets if self._is_it(target))
        for node, in_function in _walk(self.tree, False):
            line = getattr(node, "lineno", 0)
            if isinstance(node, ast.Global) and self.variable in node.names:
                raise Refused(f"line {line} changes {self.variable} from within a function. {OVERLAY}")
            if in_function:
                continue
            if isinstance(node, (ast.Import, ast.ImportFrom)) and node not in self.tree.body and self._imports_it(node):
                raise Refused(f"line {line} imports {self.variable} under a condition. {OVERLAY}")
            if self._is_it(node) and not isinstance(node.ctx, ast.Load) and id(node) not in plain:
                raise Refused(
                    f"line {line} sets {self.variable} under a condition, in a loop or together with other names, so that"
                    f" this file does not say which value counts. {OVERLAY}"
                )
            changed = (
                isinstance(node, ast.Attribute) and self._is_it(node.value) and node.attr in _CHANGING_METHODS
            ) or (isinstance(node, ast.Subscript) and self._is_it(node.value) and not isinstance(node.ctx, ast.Load))
            if changed:
                raise Refused(f"line {line} changes {self.variable} in place. {OVERLAY}")

    def _read_value(self, value):
        if isinstance(value, (ast.List, ast.Tuple)):
            container = self._container(value)
            self.containers.append(container)
        elif isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
            self._read_value(value.left)
            self._read_value(value.right)
        elif any(isinstance(node, (ast.Call, ast.Await)) for node in ast.walk(value)):
            raise Refused(
                f"line {value.lineno} takes {self.variable} from a call ({_words(value)}). "
                "Where that reads the environment, set the environment variable (mode: env)."
                f" {OVERLAY}"
            )
        elif isinstance(value, ast.Constant):
            raise Refused(f"line {value.lineno} gives {self.variable} no list: Django wants a list or tuple")
        elif isinstance(value, (ast.Name, ast.Attribute)):
            self.opaque.append(value)
        else:
            raise Refused(
                f"line {value.lineno} makes {self.variable} in a way that cannot be edited with certainty ({type(value).__name__}). {OVERLAY}"
            )

    def _container(self, node):
        start, end = self._offset(node.lineno, node.col_offset), self._offset(node.end_lineno, node.end_col_offset)
        tokens = tokens_of(self.text[start:end], start)
        bare = isinstance(node, ast.Tuple) and not is_bracketed(tokens)
        container = Container(start, end, isinstance(node, ast.Tuple), bare)
        inner = tokens if bare else tokens[1:-1]
        container.entries = entries_of(inner)
        if len(container.entries) != len(node.elts):
            raise Refused(f"line {node.lineno}: the entries could not be told apart")
        for entry, element in zip(container.entries, node.elts):  # noqa: B905 - Python 3.8 has no strict; the lengths were compared
            plain = isinstance(element, ast.Constant) and isinstance(element.value, str)
            entry.value = element.value if plain else None
            if not plain:
                self.opaque.append(element)
        return container

    def _read_marker(self):
        self.owned, self.marker_lines = [], []
        pattern = marker_pattern(self.owner)
        for statement in self.statements:
            line = self._logical_line(statement) - 1
            match = pattern.fullmatch(self.lines[line]) if line >= 0 else None
            if match:
                self.marker_lines.append(line)
                self.owned += listed(match)

    def _logical_line(self, statement):
        """Index of the physical line on which the logical line of a statement begins: others may stand before it."""
        index = self.tree.body.index(statement)
        while index > 0:
            node = self.tree.body[index]
            if not self.lines[node.lineno - 1][: characters(self.lines[node.lineno - 1], node.col_offset)].strip():
                break
            index -= 1
        return self.tree.body[index].lineno - 1

    @property
    def values(self):
        """Every entry that is written out, as it is written."""
        return [entry.value for container in self.containers for entry in container.entries if entry.value is not None]

    def opaque_words(self):
        """What stands where a plain string or list would."""
        if not self.opaque:
            return "a value"
        first = self.opaque[0]
        if isinstance(first, ast.AugAssign):
            return "what it had before this file adds to it"
        return _words(first)

    def shown(self):
        """The statements with the comment that marks what is ours."""
        parts = []
        for statement in self.statements:
            first = self._logical_line(statement)
            if first - 1 in self.marker_lines:
                first -= 1
            parts.append("\n".join(self.lines[first : statement.end_lineno]))
        return "\n".join(part.replace("\r", "") for part in parts) + "\n"

    def _offset(self, line, column):
        return self.line_starts[line - 1] + characters(self.lines[line - 1], column)

    # Editing: each gives the whole new text

    def without(self, value):
        """The text without the last entry of this value."""
        for container in reversed(self.containers):
            for index in reversed(range(len(container.entries))):
                if (container.entries[index].value or "").lower() == value:
                    return self._without_entry(container, index)
        raise Refused(f"{value!r} could not be found again")

    def _without_entry(self, container, index):
        if container.bare:
            wrapped = SettingsList(self._wrapped(container), self.variable, self.owner)
            return wrapped._without_entry(wrapped.containers[self.containers.index(container)], index)
        text, entries = self.text, container.entries
        entry = entries[index]
        if entry.has_comment:
            raise Refused(f"the entry {entry.value!r} has a comment inside: take it out by hand")
        start, end = entry.start, entry.end
        cuts = []
        left = len(entries) - 1
        if entry.comma is not None:
            if text[end : entry.comma].strip():  # a comment between the entry and its comma stays
                cuts.append((entry.comma, entry.comma + 1, ""))
            else:
                end = entry.comma + 1
        elif index > 0 and not (container.is_tuple and left == 1):
            comma = entries[index - 1].comma
            if not text[comma + 1 : start].strip(" \t"):
                start = comma
        if container.is_tuple and left == 1:
            other = entries[1 - index]
            if other.comma is None:  # one entry without a comma would be no tuple
                cuts.append((other.end, other.end, ","))
        line_start = text.rfind("\n", 0, start) + 1
        line_end = text.find("\n", end)
        line_end = len(text) if line_end < 0 else line_end
        if not text[line_start:start].strip() and not text[end:line_end].strip():
            start, end = line_start, min(line_end + 1, len(text))
        else:
            while end < len(text) and text[end] in " \t":
                end += 1
            if text[end] in ")]":
                while text[start - 1] in " \t":
                    start -= 1
        return spliced(text, [(start, end, ""), *cuts])

    def with_one_more(self, value):
        """The text with one more entry, in the first list, behind those that are there."""
        container = self.containers[0]
        if container.bare:
            wrapped = SettingsList(self._wrapped(container), self.variable, self.owner)
            return wrapped.with_one_more(value)
        if not container.entries:
            return self._with_first(container, value)
        text, last = self.text, container.entries[-1]
        quoted = self._quoted(value, container)
        after = last.end if last.comma is None else last.comma + 1
        line_end = text.find("\n", after)
        line_start = text.rfind("\n", 0, last.start) + 1
        own_line = not text[line_start : last.start].strip()
        rest = text[after:line_end].lstrip()
        if not (own_line and 0 <= line_end < container.end and (not rest or rest[0] in "#\\")):
            return spliced(text, [(last.end, last.end, ", " + quoted)])
        ending = "\r\n" if text[line_end - 1] == "\r" else "\n"
        comma = "," if last.comma is not None else ""
        new_line = text[line_start : last.start] + quoted + comma + ending
        cuts = [(line_end + 1, line_end + 1, new_line)]
        if last.comma is None:
            cuts.append((last.end, last.end, ","))
        return spliced(text, cuts)

    def _with_first(self, container, value):
        text, close = self.text, container.end - 1
        quoted = self._quoted(value, container) + ("," if container.is_tuple else "")
        line_start = text.rfind("\n", 0, close) + 1
        if line_start > container.start and not text[line_start:close].strip():
            ending = "\r\n" if text[line_start - 2 : line_start - 1] == "\r" else "\n"
            comma = "" if container.is_tuple else ","
            line = text[line_start:close] + "    " + quoted + comma + ending
            return spliced(text, [(line_start, line_start, line)])
        blank = not text[container.start + 1 : close].strip(" \t")
        end = close if blank else container.start + 1
        return spliced(text, [(container.start + 1, end, quoted)])

    def with_marker(self, owned):
        """The text with the comment that says which entries are ours, or without it where none is."""
        line = self._logical_line(self.statements[0])
        # The last line may have no end of its own: then as the one before.
        like = line - 1 if line and line == len(self.lines) - 1 else line
        ending = "\r" if self.lines[like].endswith("\r") else ""
        mark = marker(self.owner, owned) + ending
        lines = list(self.lines)
        for index in sorted(self.marker_lines, reverse=True):
            del lines[index]
            line -= 1 if index < line else 0
        if owned:
            lines.insert(line, mark)
        return "\n".join(lines)

    def _wrapped(self, container):
        return spliced(self.text, [(container.start, container.start, "("), (container.end, container.end, ")")])

    def _quoted(self, value, container):
        strings = [entry for entry in container.entries if entry.value is not None]
        mark = '"'
        if strings and self.text[strings[-1].start : strings[-1].end].lstrip("rRuU(").startswith("'"):
            mark = "'"
        return mark + value + mark


def _walk(node, in_function):
    """Every node, and whether it is inside a function or class, where names are other ones."""
    for child in ast.iter_child_nodes(node):
        yield child, in_function
        inside = in_function or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda))
        yield from _walk(child, inside)


def _words(node):
    """A node in a few words, without literals: they may be secrets."""
    if isinstance(node, ast.Call):
        return _words(node.func) + "(...)"
    if isinstance(node, ast.Attribute):
        return _words(node.value) + "." + node.attr
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Subscript):
        return _words(node.value) + "[...]"
    if isinstance(node, ast.Starred):
        return "*" + _words(node.value)
    return type(node).__name__


def _python_version():
    return "{}.{}".format(*sys.version_info[:2])
