// http.js serve PORT | run HOST PORT SIZE: an HTTP server that echoes what is posted, and a client that posts and
// says `at N`, and at the end `hash` of what it got back: see ../stage.py for the payload.
'use strict';
const http = require('http');
const crypto = require('crypto');

function serve(port) {
  http.createServer((request, response) => request.pipe(response)).listen(port);
}

function run(host, port, size) {
  const payload = crypto.createHash('shake128', { outputLength: size }).update('payload').digest();
  const got = crypto.createHash('sha256');
  let at = 0;
  const request = http.request({ host, port, method: 'POST', path: '/' }, (response) => {
    response.on('data', (piece) => {
      got.update(piece);
      at += piece.length;
      console.log(`at ${at}`);
    });
    response.on('end', () => console.log(`hash ${got.digest('hex')}`));
  });
  request.end(payload);
}

const [what, ...words] = process.argv.slice(2);
if (what === 'serve') {
  serve(Number(words[0]));
} else {
  run(words[0], Number(words[1]), Number(words[2]));
}
