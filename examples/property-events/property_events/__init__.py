"""Property events: an application on Sluice with an outbox, an inbox, retries and dead letters.

It uses a tenant's API key and the public HTTP/JSON API, and nothing else of Sluice.
"""
