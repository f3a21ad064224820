"""Compare records: two sides (`compare`), and training times of all setups (`times`)."""
