"""The row's JSON Schema, for whoever reads rows without this package.

`python -m medfsad_bench.results.row_schema` writes it anew.
"""

import json
from pathlib import Path

from medfsad_bench.results.row import Row

PATH = Path(__file__).with_name("row.schema.json")


def row_schema() -> str:
    """JSON Schema (draft 2020-12) of a row, closed: a field that it doesn't name is a fault."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "MedFSAD result row, schema 2",
        **{key: value for key, value in Row.model_json_schema(by_alias=True).items() if key != "title"},
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(row_schema(), "utf-8")
