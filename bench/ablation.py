"""What each ingredient is worth: calibration size, order of columns, refit, prefix error, budget; one changed a time.

    python bench/ablation.py ../shared/data/text/wikitext2_valid.txt -o ablation/ [--only '*windows*']

The rows are in bench/ablation.toml. What is finished is in the directory of -o, and a second run continues.
"""

from __future__ import annotations

import json

from methods import HERE, measured, parse, table


def main() -> None:
    options = parse(__doc__ or "", HERE / "ablation.toml")
    results = measured(options)
    print(table(results))
    print(json.dumps({"text": options.text.name, "rows": [result.to_json() for result in results]}))


if __name__ == "__main__":
    main()
