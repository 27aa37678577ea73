"""The kind ``fts``: a SQLite full-text index (FTS5) over columns of a dataset.

fts_indexes:
  faq: {dataset: faq-eval, columns: [question], tokenizer: unicode61}
"""

from llmctl_fts.kind import KIND

__all__ = ["KIND"]
