"""Makes the tables of the documents: `python -m docs` writes them, `python -m docs --check` says whether the committed ones are current."""
