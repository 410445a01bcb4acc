# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What is to change in a list of hosts, whose entries are whose, and the comment that says so: `# spamops added: HOST, HOST`
above a statement. So an address of ours that is no longer wanted is known from those that others put there. Python 3.8 and
the standard library alone."""

from __future__ import annotations

import re

MARKER_NOTE = "(spamops keeps this line)"


class Result:
    """What an edit came to. `text` is the whole new text; `statement_before` and `statement_after` are the lines in question,
    for showing: a settings file may hold secrets elsewhere."""

    def __init__(self, text, before, after, owned_before, owned_after, statement_before, statement_after, warnings):
        self.text = text
        self.before = before
        self.after = after
        self.owned_before = owned_before
        self.owned_after = owned_after
        self.statement_before = statement_before
        self.statement_after = statement_after
        self.warnings = warnings


class Wanted:
    """From what is there, whose it is and what is asked for: what to remove (one occurrence an entry), what to add, what is
    ours afterwards. All in lower case, as Django compares."""

    def __init__(self, present, owned, hosts, state):
        owned_here = [host for host in owned if host in present]
        if state == "present":
            self.removed = [host for host in owned_here if host not in hosts]
            self.added = [host for host in hosts if host not in present]
            ours = [host for host in owned_here if host in hosts]
        elif state == "absent":
            self.removed = [host for host in present if host in hosts] if hosts else list(owned_here)
            self.added = []
            ours = [host for host in owned_here if host not in self.removed]
        else:
            self.removed, kept = [], set()
            for host in present:
                if host in hosts and host not in kept:
                    kept.add(host)
                else:
                    self.removed.append(host)
            self.added = [host for host in hosts if host not in present]
            ours = [host for host in owned_here if host in hosts]
        self.owned = ours + self.added
        self.entries = list(present)
        for host in self.removed:
            # The last of several equal ones: ours is put behind those that were there.
            del self.entries[len(self.entries) - 1 - self.entries[::-1].index(host)]
        self.entries += self.added


def marker(owner, owned):
    return "# {} added: {} {}".format(owner, ", ".join(owned), MARKER_NOTE)


def marker_pattern(owner):
    return re.compile(rf"[ \t]*# {re.escape(owner)} added: (.*?) {re.escape(MARKER_NOTE)}\s*")


def listed(match):
    return [host.strip().lower() for host in match.group(1).split(",") if host.strip()]
