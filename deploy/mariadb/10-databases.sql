-- A database for each service, and a user of its own that can enter no other: what belongs to a service can only be
-- reached through the exchange. The passwords are for a laptop; a real deployment brings its own databases.

CREATE DATABASE payment;
CREATE DATABASE reservation;
CREATE DATABASE point;
CREATE DATABASE queue;
CREATE DATABASE notify;

CREATE USER payment@'%' IDENTIFIED BY 'payment';
CREATE USER reservation@'%' IDENTIFIED BY 'reservation';
CREATE USER point@'%' IDENTIFIED BY 'point';
CREATE USER queue@'%' IDENTIFIED BY 'queue';
CREATE USER notify@'%' IDENTIFIED BY 'notify';

GRANT ALL ON payment.* TO payment@'%';
GRANT ALL ON reservation.* TO reservation@'%';
GRANT ALL ON point.* TO point@'%';
GRANT ALL ON queue.* TO queue@'%';
GRANT ALL ON notify.* TO notify@'%';
