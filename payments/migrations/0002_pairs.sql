-- What a process that died had signed for one tab is asked for whenever that tab is taken up.
CREATE INDEX statements_by_pair ON statements (author, buyer, provider);
