'use strict';

const { join } = require('node:path');

// SQLite derives the entry point of an extension from this file name.
const LIBRARY = join(__dirname, 'libwalqueue.so');

/** Returns the path of the SQLite extension. */
function path() {
  return LIBRARY;
}

/**
 * Puts the connections that this process opens after the call into the queue.
 * The extension belongs to the copy of SQLite in the driver, not to a connection.
 */
function load(driver) {
  if (typeof driver === 'function' && hasLoadExtension(driver.prototype)) {
    // `node:sqlite` asks for the option; better-sqlite3 ignores it.
    const connection = new driver(':memory:', { allowExtension: true });
    try {
      loadInto(connection);
    } finally {
      connection.close();
    }
  } else if (typeof driver === 'object' && hasLoadExtension(driver)) {
    loadInto(driver);
  } else {
    throw new TypeError(
      'sqlite-walqueue: load() got no driver whose connections have loadExtension(); ' +
        "pass require('better-sqlite3') or the DatabaseSync of node:sqlite"
    );
  }
}

function hasLoadExtension(value) {
  return value != null && typeof value.loadExtension === 'function';
}

function loadInto(connection) {
  try {
    connection.loadExtension(LIBRARY);
  } catch (error) {
    throw new Error(
      `${LIBRARY}: SQLite did not load it: ${error.message}; pass the driver's class instead ` +
        "of a connection, or install the package that was built for this machine's processor " +
        'and C library; the SQLite of the driver has to be 3.28 or later',
      { cause: error }
    );
  }
}

module.exports = { load, path };
