-- At each start: who logs in shows a certificate with the user's name in it, beside the password. One statement for
-- each, since REQUIRE is said of all users of a statement at once.
ALTER USER IF EXISTS payment@'%' REQUIRE SUBJECT '/O=concert-saga/CN=payment';
ALTER USER IF EXISTS reservation@'%' REQUIRE SUBJECT '/O=concert-saga/CN=reservation';
ALTER USER IF EXISTS point@'%' REQUIRE SUBJECT '/O=concert-saga/CN=point';
ALTER USER IF EXISTS queue@'%' REQUIRE SUBJECT '/O=concert-saga/CN=queue';
ALTER USER IF EXISTS notify@'%' REQUIRE SUBJECT '/O=concert-saga/CN=notify';
