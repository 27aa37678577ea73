"""What an entry of ``fts_indexes`` says, and what it means: the half of the kind that reads the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from llmctl.core.address import Address
from llmctl.core.errors import InvalidInput, ProviderError
from llmctl.core.kinds import Kind, Role
from llmctl.core.plugins import Context, Declared, FieldError, FieldType, KindPlugin, Place
from llmctl.core.protocols import Provider
from llmctl.core.resources import Resource, Spec
from llmctl.spec import ResourceShape, dataset_rows
from llmctl_fts.provider import FtsProvider

#: What FTS5 takes as the name of a column; the last three mean something else to it.
_COLUMN = re.compile(r"(?!(?i:rank|rowid|documents)\Z)[A-Za-z_][A-Za-z0-9_]*\Z")


class FtsShape(ResourceShape):
    """A full-text index over a dataset."""

    dataset: str = Field(description="The name of the dataset that is indexed.", examples=["faq-eval"])
    columns: list[str] = Field(min_length=1, description="The columns that are indexed.", examples=[["question"]])
    tokenizer: Literal["unicode61", "porter", "ascii", "trigram"] = Field(
        default="unicode61", description="How text is split into words.", examples=["porter"]
    )


class FtsKind:
    """``llmctl.core.plugins.KindPlugin``."""

    #: What makes an index another one. The name of the dataset is not in it: the same content gives the same index.
    kind = Kind("fts", "fts_indexes", Role.RESOURCE, ("dataset_digest", "dataset_format", "columns", "tokenizer"))
    entry = FtsShape
    fields: Mapping[str, FieldType] = {
        "dataset": "string",
        "dataset_digest": "string",
        "dataset_format": "string",
        "columns": ["string"],
        "tokenizer": "string",
    }

    def resolve(self, name: str, entry: FtsShape, context: Context) -> Declared:  # noqa: ARG002 - the name decides nothing
        dataset = context.resource(Address("dataset", entry.dataset), ("dataset",))
        self._check_columns(entry, dataset, context)
        spec: Spec = {
            "dataset": entry.dataset,
            "dataset_digest": dataset.spec["digest"],
            "dataset_format": dataset.spec["format"],
            "columns": list(entry.columns),
            "tokenizer": entry.tokenizer,
        }
        return Declared(spec, needs=(dataset.address,))

    def provider(self, place: Place) -> Provider[Spec]:
        if place.target != "local":
            raise ProviderError(f"the kind `fts` does not serve the target {place.target}", hint="Use `local`.")
        return FtsProvider(self.kind, place)

    def _check_columns(self, entry: FtsShape, dataset: Resource, context: Context) -> None:
        path, _ = context.file(dataset.spec["source"], ("dataset",))
        try:
            _, first = next(iter(dataset_rows(path, dataset.spec["format"])), (0, {}))
        except InvalidInput as error:  # the file changed since llmctl looked at it
            raise FieldError(("dataset",), error.summary, "Run the command again.") from None
        for index, column in enumerate(entry.columns):
            key = ("columns", index)
            if column in entry.columns[:index]:
                raise FieldError(key, f"column `{column}` is listed twice", "Remove one.")
            if column not in first:
                raise FieldError(key, f"{dataset.address} has no column `{column}`", f"columns: {', '.join(first)}")
            if not _COLUMN.match(column):
                raise FieldError(key, f"SQLite takes no column `{column}`", "Use letters, digits and `_`.")


KIND: KindPlugin = FtsKind()
