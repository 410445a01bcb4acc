# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Tell the module run_record which process the run belongs to: the playbook, which is the parent of the worker that runs
this."""

from __future__ import annotations

import os
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Run the module with `holder_pid` filled in."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module; what it returns."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = {"holder_pid": os.getppid(), **self._task.args}
        result.update(
            self._execute_module(
                module_name="comses.spamops.run_record", module_args=arguments, task_vars=task_vars, wrap_async=False
            )
        )
        return result
