BEGIN TRANSACTION;
CREATE TABLE attempts (
	job VARCHAR NOT NULL, 
	attempt INTEGER NOT NULL, 
	phase VARCHAR NOT NULL, 
	backend VARCHAR NOT NULL, 
	host VARCHAR NOT NULL, 
	outcome VARCHAR, 
	counted BOOLEAN NOT NULL, 
	cause VARCHAR, 
	detail TEXT NOT NULL, 
	started_at FLOAT NOT NULL, 
	timings TEXT NOT NULL, 
	ended_at FLOAT, 
	steps TEXT NOT NULL, 
	PRIMARY KEY (job, attempt), 
	FOREIGN KEY(job) REFERENCES jobs (id)
);
INSERT INTO "attempts" VALUES('7f3a91c2-0000-4000-8000-000000000000',1,'preparing','noop','0123456789ab',NULL,1,NULL,'',2.0,'{"preparing": 2.0}',NULL,'[]');
CREATE TABLE hosts (
	owner VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	first_seen FLOAT NOT NULL, 
	PRIMARY KEY (owner)
);
CREATE TABLE jobs (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR NOT NULL, 
	request TEXT NOT NULL, 
	label VARCHAR NOT NULL, 
	image VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	cause VARCHAR, 
	detail TEXT NOT NULL, 
	exit_code INTEGER, 
	attempts INTEGER NOT NULL, 
	accepted_at FLOAT NOT NULL, 
	started_at FLOAT, 
	ended_at FLOAT, 
	UNIQUE (id)
);
INSERT INTO "jobs" VALUES(1,'7f3a91c2-0000-4000-8000-000000000000','{"schema_version": "jobrequest.v1", "request_id": "7f3a91c2-0000-4000-8000-000000000000", "runs_on": "ubuntu-22.04", "source": "a test"}','ubuntu-22.04','ubuntu-22.04-image','running',NULL,'',NULL,1,1.0,2.0,NULL);
CREATE TABLE outbox (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	message_id VARCHAR NOT NULL, 
	routing_key VARCHAR NOT NULL, 
	body TEXT NOT NULL, 
	created_at FLOAT NOT NULL, 
	UNIQUE (message_id)
);
INSERT INTO "outbox" VALUES(1,'cfe8e797-1db8-5abb-8792-4e5672f8eebc','job.accepted.ubuntu-22.04','{"schema_version": "jobevent.v1", "event_id": "cfe8e797-1db8-5abb-8792-4e5672f8eebc", "job_id": "7f3a91c2-0000-4000-8000-000000000000", "state": "accepted", "label": "ubuntu-22.04", "image": "ubuntu-22.04-image", "attempt": 0, "cause": null, "cause_text": null, "remedy": null, "detail": "", "exit_code": null, "steps": [], "backend": null, "host": null, "source": "a test", "accepted_at": 1.0, "started_at": null, "ended_at": null, "at": 1.0}',1.0);
INSERT INTO "outbox" VALUES(2,'478f7df1-5a3b-5a6a-bfed-3936cdf7ebf4','job.running.ubuntu-22.04','{"schema_version": "jobevent.v1", "event_id": "478f7df1-5a3b-5a6a-bfed-3936cdf7ebf4", "job_id": "7f3a91c2-0000-4000-8000-000000000000", "state": "running", "label": "ubuntu-22.04", "image": "ubuntu-22.04-image", "attempt": 1, "cause": null, "cause_text": null, "remedy": null, "detail": "", "exit_code": null, "steps": [], "backend": "noop", "host": "0123456789ab", "source": "a test", "accepted_at": 1.0, "started_at": 2.0, "ended_at": null, "at": 2.0}',2.0);
CREATE TABLE schema_version (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "schema_version" VALUES(1);
CREATE INDEX ix_jobs_state ON jobs (state);
CREATE INDEX ix_attempts_phase ON attempts (phase);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobs',1);
INSERT INTO "sqlite_sequence" VALUES('outbox',2);
COMMIT;
