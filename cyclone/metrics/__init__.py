"""What Prometheus sees: the state behind the Pushgateway client and behind every scrape endpoint."""
