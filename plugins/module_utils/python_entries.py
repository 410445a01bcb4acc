# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The entries of a list or tuple in Python text: where each begins and ends, told by tokens. Python 3.8 and the standard library
alone."""

from __future__ import annotations

import tokenize

from ansible_collections.comses.spamops.plugins.module_utils.host_names import Refused


class Entry:
    """One entry of a list: where it is, where the comma after it is (None: there is none), and its value (None: not a plain
    string). Offsets in the text."""

    def __init__(self, start, end, comma, value, has_comment):
        self.start = start
        self.end = end
        self.comma = comma
        self.value = value
        self.has_comment = has_comment


class Container:
    """A list or tuple that is written out, from its opening to its closing bracket."""

    def __init__(self, start, end, is_tuple, bare):
        self.start = start
        self.end = end
        self.is_tuple = is_tuple
        self.bare = bare
        self.entries = []


def entries_of(tokens):
    """The entries that these tokens make up, split at their commas."""
    entries, current, depth, has_comment = [], [], 0, False
    pending_comment = False
    for kind, string, start, end in tokens:
        if kind in (tokenize.NL, tokenize.NEWLINE):
            continue
        if kind == tokenize.COMMENT:
            pending_comment = bool(current)
            continue
        if kind == tokenize.OP and string == "," and depth == 0:
            if current:
                entries.append(Entry(current[0][2], current[-1][3], start, None, has_comment))
            current, has_comment, pending_comment = [], False, False
            continue
        depth += (string in ("(", "[", "{")) - (string in (")", "]", "}")) if kind == tokenize.OP else 0
        has_comment = has_comment or pending_comment
        pending_comment = False
        current.append((kind, string, start, end))
    if current:
        entries.append(Entry(current[0][2], current[-1][3], None, None, has_comment))
    return entries


def tokens_of(segment, offset):
    """Kind, string, start and end of each token of an expression, with offsets in the whole text. The segment is put into
    brackets of ours, so that a bare tuple on several lines can be read too."""
    starts = [0]
    for line in segment.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    found = []
    # The bracket stands on a line of its own, so that columns are those of the segment.
    lines = ["(\n"] + [line + "\n" for line in segment.split("\n")] + [")\n"]
    try:
        for token in tokenize.generate_tokens(iter([*lines, ""]).__next__):
            row = token.start[0] - 2
            if token.type == tokenize.ENDMARKER or not 0 <= row < len(starts) - 1:
                continue
            if token.type in (tokenize.INDENT, tokenize.DEDENT, tokenize.NL, tokenize.NEWLINE):
                continue
            end_row = min(token.end[0] - 2, len(starts) - 2)
            found.append(
                (
                    token.type,
                    token.string,
                    offset + starts[row] + token.start[1],
                    offset + starts[end_row] + token.end[1],
                )
            )
    except (tokenize.TokenError, IndentationError, SyntaxError) as error:
        raise Refused(f"the entries could not be told apart: {error}") from None
    return _whole_fstrings(found)


def _whole_fstrings(tokens):
    """Python 3.12 splits an f-string into parts, whose commas and brackets are none of the list's: one token each again."""
    start_kind = getattr(tokenize, "FSTRING_START", None)
    end_kind = getattr(tokenize, "FSTRING_END", None)
    found, depth, begin = [], 0, 0
    for token in tokens:
        if start_kind is not None and token[0] == start_kind:
            begin = token[2] if depth == 0 else begin
            depth += 1
        elif end_kind is not None and token[0] == end_kind:
            depth -= 1
            if depth == 0:
                found.append((tokenize.STRING, "f", begin, token[3]))
        elif depth == 0:
            found.append(token)
    return found


def is_bracketed(tokens):
    """Whether the first token is a bracket that the last one closes."""
    if not tokens or tokens[0][1] != "(":
        return False
    depth = 0
    significant = [token for token in tokens if token[0] not in (tokenize.NL, tokenize.COMMENT)]
    for index, token in enumerate(significant):
        if token[0] == tokenize.OP:
            depth += (token[1] in ("(", "[", "{")) - (token[1] in (")", "]", "}"))
        if depth == 0:
            return index == len(significant) - 1
    return False


def characters(line, column):
    """The column in characters of a column in UTF-8 bytes, which is what syntax trees have."""
    return len(line.encode("utf-8")[:column].decode("utf-8"))


def spliced(text, cuts):
    """The text with each (start, end, replacement) done."""
    for start, end, replacement in sorted(cuts, reverse=True):
        text = text[:start] + replacement + text[end:]
    return text
