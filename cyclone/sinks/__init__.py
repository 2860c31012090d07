"""Where records go: kept on disk until their database has them."""
