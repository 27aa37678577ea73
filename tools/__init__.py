"""Programs for those who work on llmctl; nothing here is installed."""
