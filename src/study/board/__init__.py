"""All runs and studies on one HTML page that needs no other file and no network."""
