"""`croissant.json`: a prepared set's description in the Croissant 1.0 vocabulary of MLCommons (JSON-LD)."""

import hashlib
from pathlib import Path
from typing import Any

from medfsad_bench.manifest import Manifest, all_manifests
from medfsad_bench.store import Dataset

_TERMS = (  # of Croissant, under their own names
    *("citeAs", "column", "containedIn", "extract", "field", "fileObject", "fileProperty", "fileSet", "format"),
    *("includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references"),
    *("regex", "repeated", "replace", "separator", "source", "subField", "transform"),
)
_OTHER_TERMS = {
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "sc": "https://schema.org/",
}
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **dict(sorted({**{term: f"cr:{term}" for term in _TERMS}, **_OTHER_TERMS}.items())),
}
_FIELDS = {
    "id": ("sc:Text", "unique in the set"),
    "image": ("sc:Text", "path of the PNG file"),
    "mask": ("sc:Text", "path of the localisation truth as PNG; empty where there is none"),
    "group": ("sc:Text", "patient, slide or eye pair, joined with near-duplicates; never on both sides of the split"),
    "label": ("sc:Integer", "1 anomalous, 0 normal"),
    "disease": ("sc:Text", "class of an anomalous image"),
    "split": ("sc:Text", "train or test"),
    "sha256": ("sc:Text", "of the original file, or of file and mask"),
    "height": ("sc:Integer", "of the original image, px"),
    "width": ("sc:Integer", "of the original image, px"),
}
FIELDS = tuple(_FIELDS)


def croissant(dataset: Dataset, table: Path) -> dict[str, Any]:
    """The description of a set that was exported as images with a table.

    Args:
        dataset: The prepared file.
        table: CSV file with the columns `FIELDS`, beside which the description will lie.
    """
    about = dataset.attributes
    manifest = all_manifests().get(dataset.name)
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"images/{name}",
            "name": name,
            "description": text,
            "dataType": kind,
            "source": {"fileObject": {"@id": table.name}, "extract": {"column": name}},
        }
        for name, (kind, text) in _FIELDS.items()
    ]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"{about['benchmark']}-{dataset.name}",
        "version": str(about["version"]),
        **_origin(dataset, manifest),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": table.name,
                "name": table.name,
                "contentUrl": table.name,
                "encodingFormat": "text/csv",
                "contentSize": f"{table.stat().st_size} B",
                "sha256": hashlib.sha256(table.read_bytes()).hexdigest(),
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "description": "One record per image.",
                "key": {"@id": "images/id"},
                "field": fields,
            }
        ],
    }


def _origin(dataset: Dataset, manifest: Manifest | None) -> dict[str, Any]:
    """What schema.org asks for; a user's own folder has no origin to name."""
    about = dataset.attributes
    identity = f"membership {about['membership_digest']}, content {about['content_digest']}"
    if manifest is None:
        return {"description": f"Prepared by medfsad {about['code_version']} from a folder of its user's. {identity}."}
    rule = " ".join(manifest.rule.split())
    return {
        "description": f"{manifest.title}: {manifest.disease} ({manifest.organ}, {manifest.modality}). {rule} "
        f"Prepared by medfsad {about['code_version']}; {identity}.",
        "license": manifest.licence,
        "url": manifest.url,
        "citeAs": manifest.citation,
        "creator": {"@type": "sc:Organization", "name": manifest.citation.split(",")[0]},
        "keywords": [manifest.organ, manifest.modality, manifest.disease, "anomaly detection"],
    }
