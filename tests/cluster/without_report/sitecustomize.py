"""Leave out the report in each Python of a job: the pictures take longer than a test's training."""

import sys
from types import ModuleType

module = ModuleType("trainer.run.final_report")
module.write_report = lambda *_: None
sys.modules[module.__name__] = module
