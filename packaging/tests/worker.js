'use strict';
// A writer of test_packages.py, like worker.py: worker.js DATABASE NAME

const { readSync, writeSync } = require('node:fs');
const Database = require('better-sqlite3');

require('sqlite-walqueue').load(Database);
const [database, name] = process.argv.slice(2);
const connection = new Database(database, { timeout: 60_000 });
connection.prepare('SELECT count(*) FROM writers').get();
writeSync(1, 'begins\n');
connection.exec('BEGIN IMMEDIATE');
writeSync(1, 'holds\n');
readSync(0, Buffer.alloc(1));
connection.prepare('INSERT INTO writers(name) VALUES (?)').run(name);
connection.exec('COMMIT');
connection.close();
