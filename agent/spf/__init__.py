"""The engine of SPF (RFC 7208): records, their evaluation, what is wrong with them. It knows no host and no finding."""
