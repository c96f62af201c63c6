"""The report of a study: tables, figures, and the page and files that show them."""
