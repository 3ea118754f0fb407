"""`check` as a script, in whose environment the instruction set is named. python -m unquant.selftest [FOLDER]"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from unquant.selftest import check

print(json.dumps(asdict(check(*map(Path, sys.argv[1:])))))
