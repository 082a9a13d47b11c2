"""The rules that void a certificate, held against every row of a run."""
