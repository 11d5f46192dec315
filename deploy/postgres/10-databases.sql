-- A database for each service, owned by a role of its own that can enter no other: what belongs to a service can
-- only be reached through the exchange. The passwords are for a laptop; a real deployment brings its own databases.

SELECT format('CREATE ROLE %1$I LOGIN PASSWORD %1$L', service)
FROM unnest(ARRAY['payment', 'reservation', 'point', 'queue', 'notify']) AS service
\gexec

SELECT format('CREATE DATABASE %1$I OWNER %1$I', rolname)
FROM pg_roles
WHERE rolname IN ('payment', 'reservation', 'point', 'queue', 'notify')
\gexec

-- Everybody may enter every database until it is said otherwise; an owner keeps the right.
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', datname)
FROM pg_database
\gexec
