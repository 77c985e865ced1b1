from .exchange import exchange_vocabulary as exchange_vocabulary
